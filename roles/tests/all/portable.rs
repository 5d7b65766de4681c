//! Values that clients would round or could not decode are refused when the catalog is read.

use artel_roles::{Catalog, YamlSource, shipped};

/// The errors of a catalog with this role and this graph.
fn errors(output: &str, ask: &str) -> Vec<String> {
    let text = format!(
        "role: judge\ndescription: Judges.\nmodel: smollm2\nprompt: You judge.\noutput: {output}\n---\n\
         graph: ask\ndescription: Asks.\nstart: say\nnodes:\n  say: {{ask: {ask}, next: done}}\n"
    );
    let source = YamlSource { path: "own.yaml".to_owned(), dir: None, text };
    match Catalog::parse(vec![shipped::sources(), vec![source]]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.message.clone()).collect(),
    }
}

/// Lists nested so deep.
fn lists(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn an_integer_that_clients_would_round_is_refused_in_schemas_and_answers() {
    let plain = ("{type: object}", "{message: 'Which?'}");
    let refused =
        |integer: &str| format!("the integer {integer} exceeds ±9007199254740991, beyond which clients round integers");
    assert_eq!(errors("{enum: [9007199254740991, -9007199254740991, 1.0e+300]}", plain.1), Vec::<String>::new());
    for schema in ["{const: 9007199254740993, enum: [1]}", "{enum: [1, 9007199254740993]}"] {
        assert_eq!(errors(schema, plain.1), [refused("9007199254740993")], "{schema}");
    }
    let bound = "{type: object, properties: {n: {minimum: -9007199254740992}}}";
    assert_eq!(errors(bound, plain.1), [refused("-9007199254740992")]);
    let ask = "{message: 'Which?', output: {type: object}, deadline: 1h, otherwise: {n: 9007199254740993}}";
    assert_eq!(errors(plain.0, ask), [refused("9007199254740993")]);
    assert_eq!(
        errors("{enum: [123456789012345678901]}", plain.1),
        ["the integer `123456789012345678901` does not fit into 64 bits"]
    );
    assert_eq!(errors("{enum: ['123456789012345678901', \"9007199254740993\"]}", plain.1), Vec::<String>::new());
}

#[test]
fn a_number_that_json_does_not_have_is_refused() {
    let ask = "{message: 'Which?'}";
    for (number, message) in [("1e400", "inf"), ("-.inf", "-inf"), (".nan", "NaN")] {
        let schema = format!("{{enum: [{number}]}}");
        assert_eq!(errors(&schema, ask), [format!("{message} is not a number of JSON")], "{number}");
    }
}

#[test]
fn a_value_that_clients_could_not_decode_is_refused() {
    let message = "lists and maps of a value nest deeper than 30";
    let ask = |schema: &str| format!("{{message: 'Which?', output: {schema}}}");
    // The schema and its `enum` are two of the levels.
    let schema = |depth: usize| format!("{{enum: [1, {}]}}", lists(depth - 2));
    assert_eq!(errors(&schema(30), &ask(&schema(30))), Vec::<String>::new());
    assert_eq!(errors(&schema(31), &ask(&schema(31))), [message, message]);
}
