//! Expressions as they are evaluated: names are resolved, calls are known, and nothing is nested deeper than a stack holds.

use std::sync::Arc;

use super::value::CelValue;

/// An expression.
#[derive(Debug)]
pub(super) enum CelExpression {
    Literal(CelValue<'static>),
    Variable(CelVariable),
    /// The element of a loop around it, counted from the outermost loop.
    Element(usize),
    List(Vec<CelExpression>),
    Map(Vec<(CelExpression, CelExpression)>),
    /// `a.b`
    Field(Box<CelExpression>, Arc<str>),
    /// `has(a.b)`
    HasField(Box<CelExpression>, Arc<str>),
    And(Box<[CelExpression; 2]>),
    Or(Box<[CelExpression; 2]>),
    /// The condition, the value if it holds, the value if not.
    Choice(Box<[CelExpression; 3]>),
    Unary(UnaryFunction, Box<CelExpression>),
    Binary(BinaryFunction, Box<[CelExpression; 2]>),
    /// `matches`: the text, the pattern, and which `matches` of the expression it is.
    Matches(Box<[CelExpression; 2]>, usize),
    Loop(Box<CelLoop>),
}

/// A variable of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CelVariable {
    Task,
    Nodes,
    Values,
    Output,
}

/// A macro that visits the elements of a list or the keys of a map.
#[derive(Debug)]
pub(super) struct CelLoop {
    pub(super) over: CelExpression,
    pub(super) body: LoopBody,
}

/// What a loop does with each element.
#[derive(Debug)]
pub(super) enum LoopBody {
    All(CelExpression),
    Exists(CelExpression),
    ExistsOne(CelExpression),
    /// `map` and `filter`.
    Collect {
        condition: Option<CelExpression>,
        element: CelExpression,
    },
}

/// A function or operator of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnaryFunction {
    Not,
    Negate,
    Size,
    Type,
    Bool,
    Bytes,
    Double,
    Dyn,
    Int,
    String,
    Uint,
}

/// A function or operator of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryFunction {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Index,
    Contains,
    StartsWith,
    EndsWith,
}

impl UnaryFunction {
    /// Its name as it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Not => "!",
            Self::Negate => "-",
            Self::Size => "size",
            Self::Type => "type",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
            Self::Double => "double",
            Self::Dyn => "dyn",
            Self::Int => "int",
            Self::String => "string",
            Self::Uint => "uint",
        }
    }
}

impl BinaryFunction {
    /// Its name as it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
            Self::Index => "[]",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
        }
    }
}
