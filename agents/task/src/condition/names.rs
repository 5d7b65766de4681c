//! The names in an expression: known before it is evaluated, so that a misspelt name is found on load.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr};

/// The free names of an expression.
#[derive(Debug, Default)]
pub(super) struct ReferencedNames {
    /// Free variables.
    pub(super) variables: BTreeSet<String>,
    /// The nodes that it reads, as in `nodes.critic`; `None` if it reads `nodes` as a whole.
    pub(super) nodes: Option<BTreeSet<String>>,
    functions: BTreeSet<String>,
}

impl ReferencedNames {
    pub(super) fn of(expression: &IdedExpr) -> Self {
        let mut names = Self { nodes: Some(BTreeSet::new()), ..Self::default() };
        names.walk(&expression.expr, &mut Vec::new());
        names
    }

    /// A name that CEL knows neither as a function nor as a method.
    pub(super) fn unknown_function(&self) -> Option<&str> {
        self.functions.iter().map(String::as_str).find(|name| !is_function(name))
    }

    fn walk<'e>(&mut self, expr: &'e Expr, bound: &mut Vec<&'e str>) {
        match expr {
            Expr::Ident(name) => self.variable(name, bound, false),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if name == "nodes" && !bound.contains(&"nodes") => {
                    self.variable(name, bound, true);
                    if let Some(nodes) = &mut self.nodes {
                        nodes.insert(select.field.clone());
                    }
                }
                operand => self.walk(operand, bound),
            },
            Expr::Call(call) => {
                self.functions.insert(call.func_name.clone());
                let operands = call.target.as_deref().into_iter().chain(&call.args);
                operands.for_each(|operand| self.walk(&operand.expr, bound));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(&element.expr, bound)),
            Expr::Map(map) => self.entries(&map.entries, bound),
            Expr::Struct(structure) => self.entries(&structure.entries, bound),
            Expr::Comprehension(comprehension) => {
                self.walk(&comprehension.iter_range.expr, bound);
                self.walk(&comprehension.accu_init.expr, bound);
                let outside = bound.len();
                bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                bound.extend(comprehension.iter_var2.as_deref());
                for inner in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.walk(&inner.expr, bound);
                }
                bound.truncate(outside);
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entries<'e>(&mut self, entries: &'e [IdedEntryExpr], bound: &mut Vec<&'e str>) {
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => self.walk(&field.value.expr, bound),
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key.expr, bound);
                    self.walk(&entry.value.expr, bound);
                }
            }
        }
    }

    fn variable(&mut self, name: &str, bound: &[&str], selected: bool) {
        // Names with `@` are internal to the parser, and the names of types are built in.
        if bound.contains(&name) || name.starts_with('@') || is_type(name) {
            return;
        }
        if name == "nodes" && !selected {
            self.nodes = None;
        }
        self.variables.insert(name.to_owned());
    }
}

fn undeclared(source: &str) -> bool {
    let Ok(program) = cel::Program::compile(source) else { return false };
    matches!(program.execute(&cel::Context::default()), Err(cel::ExecutionError::UndeclaredReference(_)))
}

/// Calls the function with arguments that none accepts: one that exists fails with another error than an undeclared reference.
fn is_function(name: &str) -> bool {
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    is_operator || !undeclared(&format!("{name}(null)")) || !undeclared(&format!("null.{name}()"))
}

fn is_type(name: &str) -> bool {
    const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
    TYPES.contains(&name)
}
