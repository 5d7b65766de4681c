//! Expressions: what they read, what is refused, and what they may cost.

mod random;

use super::*;
use serde_json::json;

fn scope<T>(run: impl FnOnce(ConditionScope<'_>) -> T) -> T {
    let (task, output) =
        (json!({"input": "hello", "graph": "g", "id": "x"}), json!({"verdict": "revise", "score": 0.5}));
    let a = json!({"text": "abc", "output": {"n": 3, "steps": ["x", "y", {"z": 1}]}, "role": "r"});
    let nodes = BTreeMap::from([(NodeName::parse("a").unwrap(), Arc::new(a))]);
    let values = BTreeMap::from([(ValueName::parse("found").unwrap(), Arc::new(json!([1, 2])))]);
    run(ConditionScope { task: &task, nodes: &nodes, values: &values, output: &output })
}

fn holds(source: &str) -> Result<bool, Error> {
    let condition = Condition::parse(source)?;
    scope(|scope| condition.holds(scope))
}

fn items(source: &str) -> Result<Vec<Value>, Error> {
    let list = ListExpression::parse(source)?;
    scope(|scope| list.items(scope))
}

#[test]
fn conditions_read_output_nodes_values_and_task() {
    assert_eq!(holds("output.verdict == 'revise'"), Ok(true));
    assert_eq!(holds("output.score > 0.6"), Ok(false));
    assert_eq!(holds("nodes.a.output.n >= 3 && task.input.startsWith('he')"), Ok(true));
    assert_eq!(holds("size(values.found) == 2 && nodes.a.output.steps.exists(s, s == 'y')"), Ok(true));
    assert_eq!(holds("has(nodes.b) || size(nodes) == 1"), Ok(true));
    assert_eq!(holds("'a' in nodes"), Ok(true));
}

#[test]
fn list_expressions_give_lists() {
    assert_eq!(items("nodes.a.output.steps"), Ok(vec![json!("x"), json!("y"), json!({"z": 1})]));
    assert_eq!(items("values.found.map(n, n * 2)"), Ok(vec![json!(2), json!(4)]));
    assert_eq!(items("[]"), Ok(vec![]));
    assert!(matches!(items("nodes.a.text"), Err(Error::NotList { .. })));
    assert!(matches!(items("nodes.b.output"), Err(Error::Evaluation { .. })));
    assert!(matches!(items("output.steps"), Err(Error::Parse(m)) if m.contains("`output`")));
}

#[test]
fn unknown_functions_are_refused_when_parsed() {
    for bad in
        ["sise(output) > 1", "output.startWith('x')", "[1].all(x, frobnicate(x))", "duration('1s') > duration('2s')"]
    {
        assert!(matches!(Condition::parse(bad), Err(Error::Parse(m)) if m.contains("unknown function")), "{bad}");
    }
    for good in [
        "size(output) > 1",
        "output.startsWith('x')",
        "output.matches('x')",
        "int(output) > 1",
        "[1].all(x, string(x) == '1')",
        "!(1 in [1]) ? true : -1 < 2",
        "type(output) == string",
    ] {
        assert!(Condition::parse(good).is_ok(), "{good}: {:?}", Condition::parse(good));
    }
}

#[test]
fn an_invalid_condition_names_its_fault() {
    assert!(matches!(holds("output.verdict =="), Err(Error::Parse(_))));
    assert!(matches!(holds("outptu.verdict == 'x'"), Err(Error::Parse(m)) if m.contains("outptu")));
    assert!(matches!(holds("[1].all(x, y == x)"), Err(Error::Parse(m)) if m.contains("`y`")));
    assert!(matches!(holds("output.missing == 'x'"), Err(Error::Evaluation { .. })));
    assert!(matches!(holds("'text'"), Err(Error::NotBool { .. })));
    assert!(matches!(holds(&format!("{}true{}", "(".repeat(500), ")".repeat(500))), Err(Error::Parse(_))));
    assert!(matches!(holds(&"true && ".repeat(4000)), Err(Error::Parse(_))));
}

#[test]
fn the_costliest_texts_are_parsed_or_refused() {
    let sum = |terms: usize| format!("{} > 0", vec!["1"; terms].join("+"));
    assert!(holds(&sum(50)).is_ok());
    let repeated =
        |text: &str, end: &str| format!("{}{end}", text.repeat((MAX_CONDITION_BYTES - end.len()) / text.len()));
    let deep = [
        sum(2000),
        repeated("1-", "1"),
        repeated("a.", "b"),
        repeated("output.", "b"),
        repeated("1 in ", "[1]"),
        repeated("1<", "1"),
        repeated("(", ""),
        repeated("[", ""),
        repeated("{", ""),
        repeated("{1:", ""),
        repeated("true?", ""),
        repeated("true?1:", "2"),
        repeated("a(", ""),
        repeated("a.b(", ""),
        repeated("[0].all(x,", ""),
        repeated("'", ""),
        repeated("@", ""),
        format!("output{}", "[0]".repeat(1300)),
        format!("output{}", ".a()".repeat(1000)),
        format!("{}1{}", "[".repeat(90), "]".repeat(90)),
        format!("{}true{}", "[0].all(x, ".repeat(90), ")".repeat(90)),
    ];
    for source in deep {
        let refused = Condition::parse(&source);
        assert!(matches!(&refused, Err(Error::Parse(_))), "{}: {refused:?}", &source[..40]);
    }
    // The parser cancels signs in pairs, and makes a balanced tree of operators that decide by themselves.
    assert_eq!(holds(&format!("{}true", "!".repeat(4000))), Ok(true));
    assert_eq!(holds(&format!("{}1 == 1", "-".repeat(4000))), Ok(true));
    assert_eq!(holds(&repeated("true && ", "true")), Ok(true));
    let refused = Condition::parse(&sum(2000)).unwrap_err().to_string();
    assert!(
        refused.ends_with("is nested more than 64 levels deep; each operator in a row and each bracket is a level"),
        "{refused}"
    );
}

#[test]
fn an_evaluation_that_costs_too_much_is_ended() {
    let nested = |macro_name: &str, end: &str| {
        let open = format!("[0,1,2,3,4,5,6,7,8,9].{macro_name}(x,");
        format!("{}{end}{}", open.repeat(12), ")".repeat(12))
    };
    for (source, budget) in [
        (nested("all", "true"), Exhausted::Steps),
        (nested("exists", "false"), Exhausted::Steps),
        (nested("exists_one", "false"), Exhausted::Steps),
        (format!("size({}) > 0", nested("map", "x")), Exhausted::Steps),
        // No operator and no loop hides it.
        (format!("{} || true", nested("all", "true")), Exhausted::Steps),
        (format!("[1].exists(y, {} || true)", nested("exists", "false")), Exhausted::Steps),
        (doubled(30), Exhausted::Bytes),
    ] {
        let failed = holds(&source);
        let Err(Error::Budget { source_text, budget: spent }) = failed else { panic!("{source}: {failed:?}") };
        assert_eq!(spent, budget, "{source}");
        assert!(source.starts_with(source_text.trim_end_matches(" ...")), "{source_text}");
    }
}

/// A text that is doubled again and again.
fn doubled(times: usize) -> String {
    let open = "[x+x].map(x,".repeat(times);
    format!("size(['0123456789'].map(x,{open}x{})) > 0", ")".repeat(times))
}

#[test]
fn usual_expressions_over_large_outputs_stay_within_the_budget() {
    let item = |i: usize| json!({"score": i + 1, "kind": "finding", "tags": ["a", "b"], "text": "x".repeat(100)});
    let output = json!({"items": (0..10_000).map(item).collect::<Vec<_>>()});
    let grid = json!({"rows": vec![json!({"cells": vec![1; 100]}); 100]});
    let text = json!("word ".repeat(800_000));
    let (task, nodes, values) = (json!({"input": "x".repeat(1024 * 1024)}), BTreeMap::new(), BTreeMap::new());
    for (source, output) in [
        ("output.items.all(i, i.score > 0)", &output),
        ("output.items.all(i, i.score > 0 && i.kind == 'finding' && size(i.tags) == 2)", &output),
        ("output.items.exists(i, i.text.contains('z')) || size(output.items.filter(i, i.score > 5)) > 0", &output),
        ("size(output.items.map(i, i.text)) == 10000", &output),
        ("output.rows.all(row, row.cells.all(cell, cell == 1))", &grid),
        ("output.startsWith('word') && !output.contains('end') && size(output) == 4000000", &text),
        ("!output.matches('APPROVED|REFUSED')", &text),
        ("!task.input.matches('B-' + 'order' + '\\b')", &text),
    ] {
        let condition = Condition::parse(source).unwrap();
        let scope = ConditionScope { task: &task, nodes: &nodes, values: &values, output };
        assert_eq!(condition.holds(scope), Ok(true), "{source}");
    }
}
