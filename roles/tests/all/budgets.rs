//! What a catalog may cost: schemas, templates and conditions that take more are refused, with words.

use std::time::Duration;

use artel_roles::{Catalog, CheckDeadline, NetworkRules, Schema, YamlSource, shipped};
use serde_json::{Value, json};

const ROLE: &str = "role: r\ndescription: x\nmodel: smollm2\nprompt: x\n";

fn source(text: String) -> YamlSource {
    YamlSource { path: "r.yaml".to_owned(), dir: Some("/c".into()), text }
}

fn schema(json: &Value) -> Result<Schema, String> {
    let text = format!("{ROLE}output: {json}\n");
    match Catalog::parse(vec![shipped::sources(), vec![source(text)]]) {
        Ok(catalog) => Ok(catalog.role("r").unwrap().output.clone().unwrap()),
        Err(problems) => Err(problems.to_string()),
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!({"x": inner}))
}

#[test]
fn alternatives_that_double_with_each_level_are_checked_within_a_budget() {
    let mut definitions = serde_json::Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/a{}", level + 1)});
        definitions.insert(format!("a{level}"), json!({"anyOf": [next, next]}));
    }
    definitions.insert("a40".to_owned(), json!({"type": "string"}));
    let chain = json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": definitions});
    let chain = schema(&chain).unwrap();
    assert_eq!(chain.check(&json!({"x": "text"})), Ok(()));
    let ended = chain.check(&json!({"x": 1})).unwrap_err().to_string();
    assert!(ended.contains("more than 20000000 steps"), "{ended}");

    let again = json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]});
    let doubling =
        schema(&json!({"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [again, again, {"required": ["end"]}]}}})).unwrap();
    let refused = doubling.check(&nested(2)).unwrap_err().to_string();
    assert!(refused.contains("any of the schemas"), "{refused}");
    // The validator remembers what it has checked of a recursive schema; the reason would double all the same.
    assert!(doubling.check(&nested(30)).is_err());
}

#[test]
fn a_schema_that_refers_to_itself_checks_a_large_value() {
    let tree = schema(&json!({
        "type": "object",
        "$ref": "#/$defs/node",
        "$defs": {"node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["name"],
            "unevaluatedProperties": false,
        }},
    }))
    .unwrap();
    let leaf = json!({"name": "leaf", "children": []});
    let branch = json!({"name": "branch", "children": vec![leaf; 100]});
    let large = json!({"name": "root", "children": vec![branch; 100]});
    assert_eq!(tree.check(&large), Ok(()));
    let wrong = json!({"name": "root", "children": [{"name": 1}]});
    assert!(tree.check(&wrong).unwrap_err().to_string().starts_with("at /children/0/name: "));
    assert!(tree.check(&json!({"name": "root", "color": "red"})).is_err());
}

#[test]
fn schemas_of_too_many_parts_or_patterns_are_refused() {
    let properties = |count: usize, of: &Value| -> Value {
        (0..count).map(|at| (format!("p{at}"), of.clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    assert_eq!(schema(&object(properties(900, &json!({"type": "string"})))).err(), None);
    let refused = schema(&object(properties(1100, &json!({"type": "string"})))).unwrap_err();
    assert!(refused.contains("the schema has 1101 parts, the limit is 1000"), "{refused}");
    let refused = schema(&object(properties(101, &json!({"pattern": "^a+$"})))).unwrap_err();
    assert!(refused.contains("the schema has 101 patterns, the limit is 100"), "{refused}");
    let refused = schema(&object(properties(1, &json!({"pattern": "(\\w{100}){100}"})))).unwrap_err();
    assert!(refused.contains("bad schema"), "{refused}");
}

#[test]
fn a_condition_that_costs_too_much_names_itself_and_the_budget() {
    let loops = "[0,1,2,3,4,5,6,7,8,9].all(x, ".repeat(13);
    let text = format!("{ROLE}when: '{loops}true{}'\n", ")".repeat(13));
    assert!(text.len() < 600);
    let problems = Catalog::parse(vec![shipped::sources(), vec![source(text)]]).unwrap_err().to_string();
    assert!(problems.contains("[0,1,2,3,4,5,6,7,8,9].all(x, ") && problems.contains("500000 steps"), "{problems}");
    let text = format!("{ROLE}when: '{} > 0'\n", vec!["1"; 2000].join("+"));
    let problems = Catalog::parse(vec![shipped::sources(), vec![source(text)]]).unwrap_err().to_string();
    assert!(problems.contains("more than 64 levels deep"), "{problems}");
}

#[test]
fn a_check_ends_with_its_deadline() {
    let files = || vec![source(ROLE.to_owned())];
    let rules = NetworkRules::new("/models".into(), None, Vec::new(), Vec::new());
    let late = CheckDeadline::after(Duration::ZERO);
    let problems = Catalog::parse_from_client(files(), &rules, &late).unwrap_err().to_string();
    assert!(problems.contains("the check was ended here"), "{problems}");
    let deadline = CheckDeadline::after(Duration::from_secs(600));
    assert!(Catalog::parse_from_client(files(), &rules, &deadline).is_ok());
    drop(deadline.cancel_on_drop());
    assert!(Catalog::parse_from_client(files(), &rules, &deadline).is_err());
}

#[test]
fn the_reason_of_a_mismatch_is_found_within_a_budget() {
    let strings: Vec<Value> = vec![json!({"type": "string"}); 900];
    let alternatives = json!({"type": "object", "properties": {"x": {"anyOf": [{"items": {"allOf": strings}}]}}});
    let alternatives = schema(&alternatives).unwrap();
    assert!(alternatives.check(&json!({"x": [1]})).unwrap_err().to_string().starts_with("at /x: "));
    let refused = alternatives.check(&json!({"x": vec![1; 10_000]})).unwrap_err().to_string();
    assert_eq!(refused, "it does not match the schema");
    let ended = alternatives.check(&json!({"x": vec![1; 300_000]})).unwrap_err().to_string();
    assert!(ended.contains("steps"), "{ended}");
}

#[test]
fn a_schema_that_takes_too_much_of_a_decoder_is_refused() {
    let patterns: Vec<Value> =
        (3..23).map(|count| json!({"pattern": format!("^[ab]*a[ab]{{{count}}}b[ab]*$")})).collect();
    for costly in [json!({"type": "integer", "multipleOf": 999_999_937}), json!({"type": "string", "allOf": patterns})]
    {
        let object = json!({"type": "object", "required": ["x"], "properties": {"x": costly}});
        let refused = schema(&object).unwrap_err();
        assert!(refused.contains("r.yaml:5:9: bad schema: the schema takes too much work or memory"), "{refused}");
    }
}

#[test]
fn a_long_chain_of_references_is_followed() {
    let mut definitions = serde_json::Map::new();
    for level in 0..900 {
        definitions.insert(format!("d{level}"), json!({"$ref": format!("#/$defs/d{}", level + 1)}));
    }
    definitions.insert("d900".to_owned(), json!({"enum": [1, 2]}));
    let chain =
        json!({"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": definitions});
    let chain = schema(&chain).unwrap();
    assert_eq!(chain.check(&json!({"x": 2})), Ok(()));
    assert!(chain.check(&json!({"x": 3})).is_err());
}
