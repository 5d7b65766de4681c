//! From the text of an expression to the tree that is evaluated.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::parser::ParseErrors;

use super::pattern::{CelPattern, InvalidPattern};
use super::tree::{BinaryFunction, CelExpression, CelLoop, CelVariable, LoopBody, UnaryFunction};
use super::value::{CelText, CelValue};
use crate::deep_stack::{self, on_deep_stack};

/// The deepest nesting of an expression: `a + b + c` has two levels, and one written by hand rarely has ten. Each level takes some
/// hundred bytes of a stack when the expression is evaluated.
pub(super) const MAX_EXPRESSION_DEPTH: usize = 64;
/// The stack on which an expression is parsed: the parser recurses once for each operator in a row, and so does the end of its
/// tree. The deepest expression of `MAX_CONDITION_BYTES` takes a quarter of it. Only the pages that are used take memory.
const PARSER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// The names of types: `type(output) == string`.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// An expression, compiled.
#[derive(Debug)]
pub(super) struct CompiledExpression {
    pub(super) root: CelExpression,
    /// The nodes that it reads by name, as in `nodes.critic`.
    pub(super) nodes: BTreeSet<String>,
    /// How often it calls `matches`.
    pub(super) pattern_count: usize,
}

/// Why a text is no expression.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    /// The parser does not accept it.
    #[error("{0}")]
    Syntax(String),
    /// It is nested too deeply.
    #[error(
        "the expression is nested more than {MAX_EXPRESSION_DEPTH} levels deep; each operator in a row and each bracket is a level"
    )]
    TooDeep,
    /// It reads a variable that does not exist here.
    #[error("unknown name `{0}`; the variables here are {1}")]
    UnknownName(String, String),
    /// It calls a function that does not exist.
    #[error("unknown function `{0}`")]
    UnknownFunction(String),
    /// The function is called with other values than it takes.
    #[error("`{0}` is called as `{1}`")]
    Call(String, &'static str),
    /// Its pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A part of the language that is not supported.
    #[error("{0} are not supported in expressions")]
    Unsupported(&'static str),
    /// The parser left a part out.
    #[error("the parser failed on it")]
    Parser,
    /// It could not be parsed.
    #[error("it could not be parsed: {0}")]
    Stack(#[from] deep_stack::Error),
}

/// Compiles an expression that may read these variables.
pub(super) fn compile(source: &str, variables: &[&'static str]) -> Result<CompiledExpression, CompileError> {
    let parse = || {
        // The tree of the parser is dropped on the same stack.
        let parsed = cel::parser::Parser::default().parse(source).map_err(|e| syntax_error(&e))?;
        let mut compiler =
            ExpressionCompiler { variables, scope: Vec::new(), nodes: BTreeSet::new(), pattern_count: 0 };
        let root = compiler.expression(&parsed, 0)?;
        Ok(CompiledExpression { root, nodes: compiler.nodes, pattern_count: compiler.pattern_count })
    };
    on_deep_stack(PARSER_STACK_BYTES, parse)?
}

/// The first error of the parser: there may be one for each character.
fn syntax_error(errors: &ParseErrors) -> CompileError {
    let first = errors.errors.first().map_or_else(|| errors.to_string(), ToString::to_string);
    match first.contains("Recursion limit") {
        true => CompileError::TooDeep,
        false => CompileError::Syntax(one_line(&first)),
    }
}

/// A text with single spaces.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct ExpressionCompiler<'a> {
    variables: &'a [&'static str],
    /// The names of the elements of the loops around, the outermost first.
    scope: Vec<String>,
    nodes: BTreeSet<String>,
    pattern_count: usize,
}

impl ExpressionCompiler<'_> {
    fn expression(&mut self, parsed: &IdedExpr, depth: usize) -> Result<CelExpression, CompileError> {
        if depth >= MAX_EXPRESSION_DEPTH {
            return Err(CompileError::TooDeep);
        }
        let depth = depth + 1;
        Ok(match &parsed.expr {
            Expr::Literal(value) => CelExpression::Literal(literal(value)),
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => {
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "nodes" && !self.scope.contains(name)) {
                    self.nodes.insert(select.field.clone());
                }
                let of = Box::new(self.expression(&select.operand, depth)?);
                let name = select.field.as_str().into();
                if select.test { CelExpression::HasField(of, name) } else { CelExpression::Field(of, name) }
            }
            Expr::Call(call) => self.call(call, depth)?,
            Expr::List(list) => CelExpression::List(self.expressions(&list.elements, depth)?),
            Expr::Map(map) => {
                let entry = |compiler: &mut Self, entry: &EntryExpr| match entry {
                    EntryExpr::MapEntry(entry) => {
                        Ok((compiler.expression(&entry.key, depth)?, compiler.expression(&entry.value, depth)?))
                    }
                    EntryExpr::StructField(_) => Err(CompileError::Unsupported("messages")),
                };
                let entries = map.entries.iter().map(|given| entry(self, &given.expr));
                CelExpression::Map(entries.collect::<Result<_, _>>()?)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth)?,
            Expr::Struct(_) => return Err(CompileError::Unsupported("messages")),
            Expr::Unspecified => return Err(CompileError::Parser),
        })
    }

    fn expressions(&mut self, parsed: &[IdedExpr], depth: usize) -> Result<Vec<CelExpression>, CompileError> {
        parsed.iter().map(|parsed| self.expression(parsed, depth)).collect()
    }

    fn pair(&mut self, a: &IdedExpr, b: &IdedExpr, depth: usize) -> Result<Box<[CelExpression; 2]>, CompileError> {
        Ok(Box::new([self.expression(a, depth)?, self.expression(b, depth)?]))
    }

    fn name(&self, name: &str) -> Result<CelExpression, CompileError> {
        if let Some(element) = self.scope.iter().rposition(|bound| bound == name) {
            return Ok(CelExpression::Element(element));
        }
        let variable = match name {
            _ if !self.variables.contains(&name) => None,
            "task" => Some(CelVariable::Task),
            "nodes" => Some(CelVariable::Nodes),
            "values" => Some(CelVariable::Values),
            "output" => Some(CelVariable::Output),
            _ => None,
        };
        if let Some(variable) = variable {
            return Ok(CelExpression::Variable(variable));
        }
        let known = TYPES.iter().find(|known| **known == name);
        let unknown = || CompileError::UnknownName(name.to_owned(), self.variables.join(", "));
        known.map(|name| CelExpression::Literal(CelValue::Type(name))).ok_or_else(unknown)
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Result<CelExpression, CompileError> {
        let name = call.func_name.as_str();
        let operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (name, operands.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => Ok(CelExpression::And(self.pair(a, b, depth)?)),
            (operators::LOGICAL_OR, [a, b]) => Ok(CelExpression::Or(self.pair(a, b, depth)?)),
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let [then, otherwise] = *self.pair(then, otherwise, depth)?;
                Ok(CelExpression::Choice(Box::new([self.expression(condition, depth)?, then, otherwise])))
            }
            ("matches", [text, pattern]) => {
                // A pattern that is written out is checked here, and compiled where it is used: it may take much memory.
                if let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr {
                    CelPattern::compile(literal.inner())?;
                }
                let number = self.pattern_count;
                self.pattern_count += 1;
                Ok(CelExpression::Matches(self.pair(text, pattern, depth)?, number))
            }
            _ => {
                if let Some((_, form)) = FORMS.iter().find(|(macro_name, _)| *macro_name == name) {
                    return Err(CompileError::Call(name.to_owned(), form));
                }
                let unknown = || CompileError::UnknownFunction(name.to_owned());
                let known = CALLS.iter().find(|known| known.name == name).ok_or_else(unknown)?;
                let wrong = || CompileError::Call(name.to_owned(), known.form);
                if !known.style.allows(call.target.is_some()) {
                    return Err(wrong());
                }
                match (known.function, operands.as_slice()) {
                    (KnownFunction::Unary(function), [operand]) => {
                        Ok(CelExpression::Unary(function, Box::new(self.expression(operand, depth)?)))
                    }
                    (KnownFunction::Binary(function), [a, b]) => {
                        Ok(CelExpression::Binary(function, self.pair(a, b, depth)?))
                    }
                    _ => Err(wrong()),
                }
            }
        }
    }

    /// A loop, of which the parser makes an accumulator, its first value and the step from one element to the next.
    fn comprehension(&mut self, parsed: &ComprehensionExpr, depth: usize) -> Result<CelExpression, CompileError> {
        let over = self.expression(&parsed.iter_range, depth)?;
        self.scope.push(parsed.iter_var.clone());
        let body = self.loop_body(parsed, depth);
        self.scope.pop();
        Ok(CelExpression::Loop(Box::new(CelLoop { over, body: body? })))
    }

    fn loop_body(&mut self, parsed: &ComprehensionExpr, depth: usize) -> Result<LoopBody, CompileError> {
        const OTHER: CompileError = CompileError::Unsupported("other macros");
        let Expr::Call(step) = &parsed.loop_step.expr else { return Err(OTHER) };
        match (&parsed.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
            (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, condition]) => {
                Ok(LoopBody::All(self.expression(condition, depth)?))
            }
            (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, condition]) => {
                Ok(LoopBody::Exists(self.expression(condition, depth)?))
            }
            (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [condition, _, _]) => {
                Ok(LoopBody::ExistsOne(self.expression(condition, depth)?))
            }
            (Expr::List(_), operators::CONDITIONAL, [condition, step, _]) => {
                let element = appended(step).ok_or(OTHER)?;
                let condition = Some(self.expression(condition, depth)?);
                Ok(LoopBody::Collect { condition, element: self.expression(element, depth)? })
            }
            (Expr::List(_), operators::ADD, _) => {
                let element = appended(&parsed.loop_step).ok_or(OTHER)?;
                Ok(LoopBody::Collect { condition: None, element: self.expression(element, depth)? })
            }
            _ => Err(OTHER),
        }
    }
}

/// The element that a step `@result + [element]` appends.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    match &step.expr {
        Expr::Call(call) if call.func_name == operators::ADD => match call.args.as_slice() {
            [_, IdedExpr { expr: Expr::List(list), .. }] => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}

fn literal(value: &LiteralValue) -> CelValue<'static> {
    match value {
        LiteralValue::Boolean(b) => CelValue::Bool(*b.inner()),
        LiteralValue::Bytes(bytes) => CelValue::Bytes(bytes.inner().into()),
        LiteralValue::Double(d) => CelValue::Double(*d.inner()),
        LiteralValue::Int(i) => CelValue::Int(*i.inner()),
        LiteralValue::Null => CelValue::Null,
        LiteralValue::String(text) => CelValue::Text(CelText::Made(text.inner().into())),
        LiteralValue::UInt(u) => CelValue::Uint(*u.inner()),
    }
}

/// How a function may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallStyle {
    /// `f(x)`, and operators.
    Function,
    /// `x.f()`
    Method,
    Both,
}

impl CallStyle {
    fn allows(self, has_target: bool) -> bool {
        self == Self::Both || has_target == (self == Self::Method)
    }
}

/// A function with its number of values.
#[derive(Debug, Clone, Copy)]
enum KnownFunction {
    Unary(UnaryFunction),
    Binary(BinaryFunction),
}

/// A function or operator by the name that the parser gives it.
struct KnownCall {
    name: &'static str,
    style: CallStyle,
    /// How it is called.
    form: &'static str,
    function: KnownFunction,
}

const fn operator(name: &'static str, function: KnownFunction) -> KnownCall {
    KnownCall { name, style: CallStyle::Function, form: name, function }
}

const fn conversion(name: &'static str, form: &'static str, function: UnaryFunction) -> KnownCall {
    KnownCall { name, style: CallStyle::Function, form, function: KnownFunction::Unary(function) }
}

const fn method(name: &'static str, form: &'static str, function: BinaryFunction) -> KnownCall {
    KnownCall { name, style: CallStyle::Method, form, function: KnownFunction::Binary(function) }
}

static CALLS: [KnownCall; 27] = [
    operator(operators::LOGICAL_NOT, KnownFunction::Unary(UnaryFunction::Not)),
    operator(operators::NEGATE, KnownFunction::Unary(UnaryFunction::Negate)),
    operator(operators::ADD, KnownFunction::Binary(BinaryFunction::Add)),
    operator(operators::SUBSTRACT, KnownFunction::Binary(BinaryFunction::Subtract)),
    operator(operators::MULTIPLY, KnownFunction::Binary(BinaryFunction::Multiply)),
    operator(operators::DIVIDE, KnownFunction::Binary(BinaryFunction::Divide)),
    operator(operators::MODULO, KnownFunction::Binary(BinaryFunction::Remainder)),
    operator(operators::EQUALS, KnownFunction::Binary(BinaryFunction::Equal)),
    operator(operators::NOT_EQUALS, KnownFunction::Binary(BinaryFunction::NotEqual)),
    operator(operators::LESS, KnownFunction::Binary(BinaryFunction::Less)),
    operator(operators::LESS_EQUALS, KnownFunction::Binary(BinaryFunction::LessEqual)),
    operator(operators::GREATER, KnownFunction::Binary(BinaryFunction::Greater)),
    operator(operators::GREATER_EQUALS, KnownFunction::Binary(BinaryFunction::GreaterEqual)),
    operator(operators::IN, KnownFunction::Binary(BinaryFunction::In)),
    operator(operators::INDEX, KnownFunction::Binary(BinaryFunction::Index)),
    conversion("bool", "bool(x)", UnaryFunction::Bool),
    conversion("bytes", "bytes(x)", UnaryFunction::Bytes),
    conversion("double", "double(x)", UnaryFunction::Double),
    conversion("dyn", "dyn(x)", UnaryFunction::Dyn),
    conversion("int", "int(x)", UnaryFunction::Int),
    conversion("string", "string(x)", UnaryFunction::String),
    conversion("type", "type(x)", UnaryFunction::Type),
    conversion("uint", "uint(x)", UnaryFunction::Uint),
    method("contains", "x.contains(y)", BinaryFunction::Contains),
    method("endsWith", "x.endsWith(y)", BinaryFunction::EndsWith),
    method("startsWith", "x.startsWith(y)", BinaryFunction::StartsWith),
    KnownCall {
        name: "size",
        style: CallStyle::Both,
        form: "size(x)",
        function: KnownFunction::Unary(UnaryFunction::Size),
    },
];

/// How the macros are called, which the parser expands, and `matches`, which is another part of the tree.
const FORMS: [(&str, &str); 7] = [
    ("all", "x.all(y, condition)"),
    ("exists", "x.exists(y, condition)"),
    ("exists_one", "x.exists_one(y, condition)"),
    ("filter", "x.filter(y, condition)"),
    ("has", "has(x.y)"),
    ("map", "x.map(y, value)"),
    ("matches", "x.matches(y)"),
];
