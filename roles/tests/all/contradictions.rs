//! Schemas that no value satisfies are refused, with the place and the reason; schemas that seem so are not.

use serde_json::{Value, json};

use super::schemas::{catalog, output, refusal, wrapped};

/// What a property may be, so that none can be given.
fn contradictions() -> Vec<Value> {
    let never_ending = json!({"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#/properties/v"}}});
    vec![
        json!(false),
        json!({"not": {}}),
        json!({"enum": []}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"type": "number", "exclusiveMinimum": 5, "maximum": 5}),
        json!({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}),
        json!({"type": "integer", "minimum": 11, "maximum": 19, "multipleOf": 10}),
        json!({"type": "string", "minLength": 5, "maxLength": 4}),
        json!({"type": "string", "pattern": "^[a-z]{3}$", "maxLength": 2}),
        json!({"type": "string", "format": "date", "maxLength": 9}),
        json!({"type": "array", "minItems": 3, "maxItems": 2}),
        json!({"type": "array", "items": false, "minItems": 1}),
        json!({"type": "array", "prefixItems": [{"type": "string"}], "items": false, "minItems": 2}),
        json!({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true, "minItems": 3}),
        json!({"type": "array", "items": {"type": "boolean"}, "uniqueItems": true, "minItems": 3}),
        json!({"type": "array", "items": {"type": "string"}, "contains": {"type": "integer"}}),
        json!({"type": "array", "contains": {"const": 1}, "minContains": 3, "maxItems": 2}),
        json!({"type": "array", "contains": {"const": 1}, "minContains": 3, "maxContains": 2}),
        json!({"type": "object", "minProperties": 2, "maxProperties": 1}),
        json!({"type": "object", "required": ["a", "b"], "maxProperties": 1}),
        json!({"type": "object", "required": ["a"], "properties": {"a": false}}),
        json!({"type": "object", "required": ["a"], "additionalProperties": false}),
        json!({"type": "object", "required": ["a"], "patternProperties": {"^a": false}}),
        json!({"type": "object", "minProperties": 2, "properties": {"a": true}, "additionalProperties": false}),
        json!({"type": "object", "required": ["ab"], "propertyNames": {"maxLength": 1}}),
        json!({"type": "object", "minProperties": 1, "propertyNames": false}),
        json!({"type": "object", "required": ["a"], "dependentRequired": {"a": ["b"]}, "properties": {"b": false}}),
        json!({"type": "object", "required": ["a"], "dependentSchemas": {"a": false}}),
        json!({"const": 1, "type": "string"}),
        json!({"const": "a", "enum": ["b", "c"]}),
        json!({"enum": ["a", "b"], "type": "integer"}),
        json!({"enum": ["a", "b"], "not": {"enum": ["a", "b", "c"]}}),
        json!({"enum": ["a", "bb"], "minLength": 3}),
        json!({"const": "2024-13-01", "format": "date"}),
        json!({"type": "string", "not": {"type": "string"}}),
        json!({"type": "string", "allOf": [{"type": "integer"}]}),
        json!({"allOf": [{"minimum": 5}, {"maximum": 4}, {"type": "number"}]}),
        json!({"allOf": [{"enum": ["a", "b"]}, {"enum": ["c"]}]}),
        json!({"allOf": [{"required": ["a"], "type": "object"}, {"properties": {"a": false}}]}),
        json!({"anyOf": [{"type": "string", "minLength": 2, "maxLength": 1}, false]}),
        json!({"oneOf": [{"type": "string"}, {"type": "string"}]}),
        json!({"oneOf": [true, true]}),
        json!({"if": true, "then": false}),
        json!({"type": "string", "if": {"type": "string"}, "then": {"minLength": 3}, "maxLength": 2}),
        json!({"type": "integer", "minimum": 1e17}),
        never_ending,
        json!({"type": "array", "minItems": 1, "items": {"$ref": "#/properties/v"}}),
        json!({"type": "object", "required": ["a", "b"], "properties": {"a": {"$ref": "#/properties/v"}, "b": true}}),
    ]
}

/// What seems contradictory, or endless, and is not; with a value.
fn satisfiable() -> Vec<(Value, Value)> {
    vec![
        (json!({"type": "number", "minimum": 0.3, "maximum": 0.3, "multipleOf": 0.1}), json!(0.3)),
        (json!({"minLength": 5, "maxLength": 4}), json!(1)),
        (json!({"type": ["string", "null"], "minLength": 5, "maxLength": 4}), json!(null)),
        (json!({"type": "array", "items": false}), json!([])),
        (json!({"type": "object", "properties": {"a": false}}), json!({})),
        (json!({"type": "object", "properties": {"next": {"$ref": "#/properties/v"}}}), json!({"next": {"next": {}}})),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/endless"}}, "additionalProperties": false}),
            json!({}),
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/properties/v"}}}]}),
            json!({"n": {"n": null}}),
        ),
        (json!({"type": "array", "items": {"$ref": "#/properties/v"}}), json!([[], [[]]])),
        (
            json!({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true, "minItems": 2}),
            json!(["b", "a"]),
        ),
        (json!({"type": "string", "format": "ipv6", "pattern": "\\."}), json!("::1.2.3.4")),
        (json!({"oneOf": [{"type": "integer"}, {"minimum": 2}]}), json!(1)),
        (
            json!({"type": "object", "required": ["a"], "minProperties": 2, "properties": {"a": true, "b": true}}),
            json!({"a": 1, "b": 2}),
        ),
        (json!({"if": false, "then": false}), json!(1)),
        (
            json!({"type": "object", "unevaluatedProperties": false, "allOf": [{"properties": {"a": true}}]}),
            json!({"a": 1}),
        ),
        (json!({"type": "string", "format": "binary"}), json!("any")),
    ]
}

#[test]
fn a_schema_that_no_value_satisfies_is_refused_with_words() {
    let mut passed = Vec::new();
    for contradiction in contradictions() {
        match refusal(&wrapped(&contradiction)) {
            Some(message) => {
                let is_short = message.lines().next().unwrap().len() < 500;
                let says_so = message.contains("no value satisfies the schema") || message.contains("bad schema: ");
                assert!(is_short && says_so && message.contains("r.yaml:"), "{contradiction}: {message}");
                println!("{contradiction}\n    {}", message.lines().next().unwrap());
            }
            None => passed.push(contradiction.to_string()),
        }
    }
    assert_eq!(passed, [""; 0]);
}

#[test]
fn a_schema_that_some_value_satisfies_is_not_refused() {
    for (schema, value) in satisfiable() {
        let mut whole = wrapped(&schema);
        whole["$defs"] =
            json!({"endless": {"type": "object", "required": ["e"], "properties": {"e": {"$ref": "#/$defs/endless"}}}});
        let schema = output(&whole).unwrap_or_else(|refusal| panic!("{whole}: {refusal}"));
        assert_eq!(schema.check(&json!({"v": value})), Ok(()), "{whole}");
    }
}

#[test]
fn an_answer_that_cannot_be_given_is_refused() {
    let graph = |schema: &Value| {
        let text = format!(
            "graph: g\ndescription: x\nstart: ask\nnodes:\n  ask: {{ask: {{message: What?, output: {schema}}}, next: done}}\n"
        );
        catalog(text).err().map(|problems| problems.to_string())
    };
    let refused = graph(&wrapped(&json!({"type": "integer", "minimum": 2, "maximum": 1}))).unwrap();
    assert!(refused.contains("no value satisfies the schema"), "{refused}");
    // No decoder is held to it.
    assert_eq!(graph(&wrapped(&json!({"type": "integer", "multipleOf": 999_999_937}))), None);
}

#[test]
fn outputs_and_answers_are_held_to_formats() {
    let dated = output(&wrapped(&json!({"type": "string", "format": "date"}))).unwrap();
    assert_eq!(dated.check(&json!({"v": "2024-02-29"})), Ok(()));
    let refused = dated.check(&json!({"v": "2023-02-29"})).unwrap_err().to_string();
    assert!(refused.starts_with("at /v: "), "{refused}");
    let stored = output(&wrapped(&json!({"type": "string", "format": "binary"}))).unwrap();
    assert_eq!(stored.check(&json!({"v": "\u{1}"})), Ok(()));
    let misspelt = wrapped(&json!({"type": "string", "format": "date-tme"}));
    let text = format!("role: r\ndescription: x\nmodel: smollm2\nprompt: x\noutput: {misspelt}\n");
    let warnings = catalog(text).unwrap().warnings().to_string();
    assert!(warnings.contains("no format `date-tme`") && warnings.contains("did you mean `date-time`?"), "{warnings}");
}
