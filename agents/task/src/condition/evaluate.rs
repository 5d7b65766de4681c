//! The evaluation of expressions. Every visited part, element and text takes steps of the budget, and every value that is made takes
//! bytes of it, before the work is done: no evaluation does more.

use std::sync::Arc;

use super::budget::{EvaluationBudget, Exhausted};
use super::function::{FunctionFault, binary, unary};
use super::pattern::{CelPattern, InvalidPattern, SearchCache};
use super::tree::{CelExpression, CelLoop, CelVariable, LoopBody};
use super::value::{CelList, CelMap, CelValue, equal};

/// The variables of an evaluation.
#[derive(Debug)]
pub(super) struct CelVariables<'a> {
    pub(super) task: CelValue<'a>,
    pub(super) nodes: CelValue<'a>,
    pub(super) values: CelValue<'a>,
    pub(super) output: CelValue<'a>,
}

/// Why an evaluation gives no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum EvaluationFault {
    /// The budget is used up. No operator of the expression hides that.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A function does not apply to its values.
    #[error(transparent)]
    Function(#[from] FunctionFault),
    /// A condition inside the expression is something else.
    #[error("{0} where true or false is needed")]
    NotBool(&'static str),
    /// A map lacks the key.
    #[error("no such key `{0}`")]
    NoSuchKey(Arc<str>),
    /// The value has no fields.
    #[error("{0} has no field `{1}`")]
    NoFields(&'static str, Arc<str>),
    /// A loop over something else than a list or a map.
    #[error("{0} has no elements")]
    NoElements(&'static str),
    /// A map has such a key twice.
    #[error("a map has the same key twice")]
    DuplicateKey,
    /// No key of a map.
    #[error("{0} cannot be the key of a map")]
    NoKey(&'static str),
    /// A pattern that the evaluation has made.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
}

/// One evaluation.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    variables: CelVariables<'a>,
    /// The current elements of the loops around, the outermost first.
    elements: Vec<CelValue<'a>>,
    /// The pattern that each `matches` of the expression has used last.
    searches: Vec<Option<PatternSearch>>,
    pub(super) budget: EvaluationBudget,
}

/// A pattern that is searched for.
#[derive(Debug)]
struct PatternSearch {
    text: String,
    pattern: CelPattern,
    cache: SearchCache,
}

impl<'a> Evaluator<'a> {
    /// An evaluation of an expression that calls `matches` so often.
    pub(super) fn new(variables: CelVariables<'a>, pattern_count: usize) -> Self {
        let searches = std::iter::repeat_with(|| None).take(pattern_count).collect();
        Self { variables, elements: Vec::new(), searches, budget: EvaluationBudget::default() }
    }

    /// The value of an expression.
    pub(super) fn value(&mut self, expression: &CelExpression) -> Result<CelValue<'a>, EvaluationFault> {
        self.budget.take_steps(1)?;
        match expression {
            CelExpression::Literal(value) => Ok(value.clone()),
            CelExpression::Variable(variable) => Ok(self.variable(*variable)),
            CelExpression::Element(depth) => Ok(self.elements.get(*depth).cloned().unwrap_or(CelValue::Null)),
            CelExpression::List(elements) => self.list(elements),
            CelExpression::Map(entries) => self.map(entries),
            CelExpression::Field(of, name) => self.field(of, name),
            CelExpression::HasField(of, name) => self.has_field(of, name),
            CelExpression::And(operands) => self.logic(operands, false),
            CelExpression::Or(operands) => self.logic(operands, true),
            CelExpression::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                if self.truth(condition)? { self.value(then) } else { self.value(otherwise) }
            }
            CelExpression::Unary(function, operand) => {
                let operand = self.value(operand)?;
                Ok(unary(*function, operand, &mut self.budget)??)
            }
            CelExpression::Binary(function, operands) => {
                let [a, b] = &**operands;
                let (a, b) = (self.value(a)?, self.value(b)?);
                Ok(binary(*function, &a, &b, &mut self.budget)??)
            }
            CelExpression::Matches(operands, number) => self.matches(operands, *number),
            CelExpression::Loop(inner) => self.run_loop(inner),
        }
    }

    fn variable(&self, variable: CelVariable) -> CelValue<'a> {
        match variable {
            CelVariable::Task => self.variables.task.clone(),
            CelVariable::Nodes => self.variables.nodes.clone(),
            CelVariable::Values => self.variables.values.clone(),
            CelVariable::Output => self.variables.output.clone(),
        }
    }

    fn truth(&mut self, expression: &CelExpression) -> Result<bool, EvaluationFault> {
        match self.value(expression)? {
            CelValue::Bool(b) => Ok(b),
            other => Err(EvaluationFault::NotBool(other.type_name())),
        }
    }

    /// `&&` and `||`: an operand that decides alone hides the fault of the other one.
    fn logic(&mut self, [a, b]: &[CelExpression; 2], deciding: bool) -> Result<CelValue<'a>, EvaluationFault> {
        let first = self.truth(a);
        match first {
            Err(EvaluationFault::Exhausted(exhausted)) => return Err(exhausted.into()),
            Ok(value) if value == deciding => return Ok(CelValue::Bool(deciding)),
            _ => {}
        }
        let second = self.truth(b)?;
        if second == deciding {
            return Ok(CelValue::Bool(deciding));
        }
        first.map(|_| CelValue::Bool(second))
    }

    fn list(&mut self, elements: &[CelExpression]) -> Result<CelValue<'a>, EvaluationFault> {
        self.budget.take_bytes(elements.len().saturating_mul(size_of::<CelValue<'a>>()))?;
        let values = elements.iter().map(|element| self.value(element)).collect::<Result<Vec<_>, _>>()?;
        Ok(CelValue::List(CelList::Made(values.into())))
    }

    fn map(&mut self, entries: &[(CelExpression, CelExpression)]) -> Result<CelValue<'a>, EvaluationFault> {
        self.budget.take_bytes(entries.len().saturating_mul(size_of::<(CelValue<'a>, CelValue<'a>)>()))?;
        let mut made: Vec<(CelValue<'a>, CelValue<'a>)> = Vec::new();
        for (key, value) in entries {
            let key = self.value(key)?;
            if !key.is_key() {
                return Err(EvaluationFault::NoKey(key.type_name()));
            }
            let value = self.value(value)?;
            for (other, _) in &made {
                if equal(other, &key, &mut self.budget)? {
                    return Err(EvaluationFault::DuplicateKey);
                }
            }
            made.push((key, value));
        }
        Ok(CelValue::Map(CelMap::Made(made.into())))
    }

    fn field(&mut self, of: &CelExpression, name: &Arc<str>) -> Result<CelValue<'a>, EvaluationFault> {
        match self.value(of)? {
            CelValue::Map(map) => {
                let value = map.field(name, &mut self.budget)?;
                value.ok_or_else(|| EvaluationFault::NoSuchKey(name.clone()))
            }
            other => Err(EvaluationFault::NoFields(other.type_name(), name.clone())),
        }
    }

    fn has_field(&mut self, of: &CelExpression, name: &Arc<str>) -> Result<CelValue<'a>, EvaluationFault> {
        match self.value(of)? {
            CelValue::Map(map) => Ok(CelValue::Bool(map.field(name, &mut self.budget)?.is_some())),
            other => Err(EvaluationFault::NoFields(other.type_name(), name.clone())),
        }
    }

    fn matches(
        &mut self,
        [text, pattern]: &[CelExpression; 2],
        number: usize,
    ) -> Result<CelValue<'a>, EvaluationFault> {
        let (CelValue::Text(text), CelValue::Text(wanted)) = (self.value(text)?, self.value(pattern)?) else {
            return Err(FunctionFault::Matches.into());
        };
        let Some(slot) = self.searches.get_mut(number) else { return Err(FunctionFault::Matches.into()) };
        let known = slot.take().filter(|search| *search.text == *wanted);
        let search = match known {
            Some(search) => slot.insert(search),
            None => {
                CelPattern::take(&wanted, &mut self.budget)?;
                let pattern = CelPattern::compile(&wanted)?;
                slot.insert(PatternSearch { text: wanted.to_string(), cache: pattern.cache(), pattern })
            }
        };
        let found = search.pattern.is_match(&text, &mut search.cache, &mut self.budget)?;
        Ok(CelValue::Bool(found))
    }

    fn run_loop(&mut self, inner: &CelLoop) -> Result<CelValue<'a>, EvaluationFault> {
        let over = match self.value(&inner.over)? {
            CelValue::List(list) => list,
            CelValue::Map(map) => map.keys(&mut self.budget)?,
            other => return Err(EvaluationFault::NoElements(other.type_name())),
        };
        let depth = self.elements.len();
        self.elements.push(CelValue::Null);
        let result = match &inner.body {
            LoopBody::All(condition) => self.decide(&over, depth, condition, false),
            LoopBody::Exists(condition) => self.decide(&over, depth, condition, true),
            LoopBody::ExistsOne(condition) => self.exists_one(&over, depth, condition),
            LoopBody::Collect { condition, element } => self.collect(&over, depth, condition.as_ref(), element),
        };
        self.elements.truncate(depth);
        result
    }

    /// Makes the element with this index the current one of the loop at this depth.
    fn visit(&mut self, over: &CelList<'a>, index: usize, depth: usize) -> Result<(), Exhausted> {
        self.budget.take_steps(1)?;
        if let Some(element) = self.elements.get_mut(depth) {
            *element = over.get(index);
        }
        Ok(())
    }

    /// `all` and `exists`: an element that decides alone hides the faults of others.
    fn decide(
        &mut self,
        over: &CelList<'a>,
        depth: usize,
        condition: &CelExpression,
        deciding: bool,
    ) -> Result<CelValue<'a>, EvaluationFault> {
        let mut hidden = None;
        for index in 0..over.len() {
            self.visit(over, index, depth)?;
            match self.truth(condition) {
                Ok(value) if value == deciding => return Ok(CelValue::Bool(deciding)),
                Ok(_) => {}
                Err(EvaluationFault::Exhausted(exhausted)) => return Err(exhausted.into()),
                Err(fault) => hidden = Some(fault),
            }
        }
        hidden.map_or(Ok(CelValue::Bool(!deciding)), Err)
    }

    fn exists_one(
        &mut self,
        over: &CelList<'a>,
        depth: usize,
        condition: &CelExpression,
    ) -> Result<CelValue<'a>, EvaluationFault> {
        let mut found = 0usize;
        for index in 0..over.len() {
            self.visit(over, index, depth)?;
            found += usize::from(self.truth(condition)?);
        }
        Ok(CelValue::Bool(found == 1))
    }

    fn collect(
        &mut self,
        over: &CelList<'a>,
        depth: usize,
        condition: Option<&CelExpression>,
        element: &CelExpression,
    ) -> Result<CelValue<'a>, EvaluationFault> {
        let mut values = Vec::new();
        for index in 0..over.len() {
            self.visit(over, index, depth)?;
            let is_taken = match condition {
                Some(condition) => self.truth(condition)?,
                None => true,
            };
            if is_taken {
                self.budget.take_bytes(size_of::<CelValue<'a>>())?;
                values.push(self.value(element)?);
            }
        }
        Ok(CelValue::List(CelList::Made(values.into())))
    }
}
