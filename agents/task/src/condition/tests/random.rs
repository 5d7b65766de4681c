//! Random expressions: they give what the crate `cel` gives, and use no more than their budget.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::compile::compile;
use super::super::{
    Condition, ConditionScope, Error, Evaluator, ListExpression, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_STEPS,
};

/// An expression over `output` and the element `x` of a loop around it.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "0",
        "1",
        "2",
        "-3",
        "2u",
        "0.5",
        "2.0",
        "'a'",
        "'ab'",
        "''",
        "'1'",
        "b'a'",
        "true",
        "false",
        "null",
        "x",
        "output",
        "output.n",
        "output.list",
        "output.map",
        "output.map.a",
        "output.none",
        "[]",
        "string",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 3, |inner| {
        let operators = vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"];
        let functions = vec!["size", "string", "int", "uint", "double", "bool", "bytes", "type", "dyn", "!", "-"];
        let methods = vec!["contains", "startsWith", "endsWith"];
        let loops = vec!["all", "exists", "exists_one", "map", "filter"];
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            4 => (pair(), prop::sample::select(operators)).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            3 => (inner.clone(), prop::sample::select(functions)).prop_map(|(a, f)| format!("{f}({a})")),
            1 => (pair(), prop::sample::select(methods)).prop_map(|((a, b), f)| format!("({a}).{f}({b})")),
            2 => (pair(), prop::sample::select(loops)).prop_map(|((a, b), f)| format!("[{a}, 1, 'a'].{f}(x, {b})")),
            1 => (pair(), inner.clone()).prop_map(|((a, b), c)| format!("[{a}, 2].map(x, {b}, {c})")),
            1 => (pair(), inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
            1 => pair().prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => pair().prop_map(|(a, b)| format!("{{'a': {a}, {b}: 1}}")),
            1 => pair().prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => inner.clone().prop_map(|a| format!("({a}).a")),
            1 => inner.clone().prop_map(|a| format!("has(({a}).a)")),
        ]
    })
}

fn output() -> Json {
    json!({"n": 2, "list": [1, "a", null, [true]], "map": {"a": 1.5}, "none": null})
}

fn ours(source: &str) -> Result<Json, Error> {
    let (output, nodes, values) = (output(), BTreeMap::new(), BTreeMap::new());
    let scope = ConditionScope { task: &output, nodes: &nodes, values: &values, output: &Json::Null };
    Ok(Json::Array(ListExpression::parse(source)?.items(scope)?))
}

/// What the crate `cel` gives; `None` for an error.
fn theirs(source: &str) -> Option<Json> {
    let program = cel::Program::compile(source).ok()?;
    let mut context = cel::Context::default();
    context.add_variable_from_value("task", cel_value(&output()));
    plain(&program.execute(&context).ok()?)
}

fn cel_value(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(b) => cel::Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(integer) => cel::Value::Int(integer),
            None => cel::Value::Float(n.as_f64().unwrap()),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => cel::Value::List(items.iter().map(cel_value).collect::<Vec<_>>().into()),
        Json::Object(map) => map
            .iter()
            .map(|(key, json)| (key.as_str(), cel_value(json)))
            .collect::<std::collections::HashMap<_, _>>()
            .into(),
    }
}

fn plain(value: &cel::Value) -> Option<Json> {
    Some(match value {
        cel::Value::Null => Json::Null,
        cel::Value::Bool(b) => (*b).into(),
        cel::Value::Int(i) => (*i).into(),
        cel::Value::UInt(u) => (*u).into(),
        cel::Value::Float(d) => (*d).into(),
        cel::Value::String(text) => text.as_str().into(),
        cel::Value::List(items) => items.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        cel::Value::Map(map) => Json::Object(
            map.map.iter().map(|(key, value)| Some((key.to_string(), plain(value)?))).collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn expressions_give_what_the_crate_gives(inner in expressions()) {
        let source = format!("[0].map(x, {})", inner.replace("output", "task"));
        match (ours(&source), theirs(&source)) {
            (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs, "{}", source),
            (Err(Error::Parse(_) | Error::Budget { .. } | Error::NotList { .. }), _) => {}
            (Err(_), None) => {}
            // The crate appends the keys of a map to a list, which the language does not.
            (Err(error), _) if error.to_string().contains("`+` does not apply to list and map") => {}
            (ours, theirs) => prop_assert!(false, "{source}: {ours:?} and {theirs:?}"),
        }
    }
}

/// Loops in loops, lists of lists and growing texts over values of any size.
fn costly() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["output.list", "output.text", "x", "1", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"])
        .prop_map(str::to_owned);
    leaf.prop_recursive(12, 60, 2, |inner| {
        let loops = vec!["all", "exists", "exists_one", "map", "filter"];
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            4 => (pair(), prop::sample::select(loops)).prop_map(|((a, b), f)| format!("({a}).{f}(x, {b})")),
            2 => pair().prop_map(|(a, b)| format!("({a} + {b})")),
            2 => pair().prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => pair().prop_map(|(a, b)| format!("({a} == {b})")),
            1 => pair().prop_map(|(a, b)| format!("({a} in {b})")),
            1 => pair().prop_map(|(a, b)| format!("({a}).matches({b})")),
            1 => inner.clone().prop_map(|a| format!("string({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn an_evaluation_uses_no_more_than_its_budget(inner in costly(), count in 0usize..2000, bytes in 0usize..200_000) {
        let source = format!("[0].map(x, {inner})");
        prop_assume!(source.len() <= super::super::MAX_CONDITION_BYTES);
        let Ok(compiled) = compile(&source, &Condition::VARIABLES) else { return Ok(()) };
        let output = json!({"list": vec![json!({"a": [1, 2]}); count], "text": "y".repeat(bytes)});
        let (nodes, values) = (BTreeMap::new(), BTreeMap::new());
        let variables = super::super::variables(ConditionScope { task: &Json::Null, nodes: &nodes, values: &values, output: &output });
        let mut evaluator = Evaluator::new(variables, compiled.pattern_count);
        let result = evaluator.value(&compiled.root);
        let (steps, made) = evaluator.budget.used();
        prop_assert!(steps <= MAX_EXPRESSION_STEPS && made <= MAX_EXPRESSION_BYTES);
        drop(result);
    }
}
