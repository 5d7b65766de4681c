//! Valid and invalid command lines.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn labels_split_at_the_first_equals_sign() {
    let label = |key: &str, value: &str| Ok(TaskLabel { key: key.into(), value: value.into() });
    assert_eq!("a=b".parse(), label("a", "b"));
    assert_eq!("a=b=c".parse(), label("a", "b=c"));
    assert_eq!("a=".parse(), label("a", ""));
    assert!("a".parse::<TaskLabel>().is_err());
    assert!("=b".parse::<TaskLabel>().is_err());
}

#[test]
fn a_task_runs_a_graph_or_a_role_but_not_both() {
    assert!(parse("artel run --graph g --role r text").is_err());
    let args = parse("artel run --role r --batch --label a=1 --label b=2 - --json").unwrap();
    assert!(args.global.json);
    let CliCommand::Client(ClientCommand::Run(submit)) = args.command else { panic!("{:?}", args.command) };
    assert_eq!((submit.role.as_deref(), submit.batch, submit.labels.len()), (Some("r"), true, 2));
}

#[test]
fn an_answer_is_text_or_a_value() {
    assert!(parse("artel task answer id").is_err());
    assert!(parse("artel task answer id text --value 1").is_err());
    assert!(parse("artel task answer id --value {").is_err());
    assert!(parse("artel task answer id --value {}").is_ok());
    assert!(parse("artel task answer id --value 9007199254740991").is_ok());
    assert!(parse("artel task answer id --value 9007199254740993").is_err());
    assert!(parse("artel task answer id text").is_ok());
}

#[test]
fn a_router_node_needs_its_graph() {
    assert!(parse("artel route --graph g text").is_err());
    assert!(parse("artel route --node n text").is_err());
    assert!(parse("artel route --graph g --node n --role a --role b text").is_ok());
}

#[test]
fn invalid_usage_is_exit_code_two() {
    assert_eq!(parse("artel run").unwrap_err().exit_code(), 2);
    assert_eq!(parse("artel task list --label x").unwrap_err().exit_code(), 2);
}

#[test]
fn the_data_directory_may_stand_before_any_verb() {
    let data = |line: &str| parse(line).unwrap().global.data.unwrap();
    for line in ["artel --data /d run text", "artel run --data /d text", "artel token list --data /d"] {
        assert_eq!(data(line).to_str(), Some("/d"), "{line}");
    }
    for line in ["artel --data /d serve", "artel serve --data /d"] {
        let CliCommand::Serve(serve) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(serve.daemon.data.unwrap().to_str(), Some("/d"), "{line}");
    }
}

#[test]
fn a_token_needs_a_name_and_scopes() {
    assert!(parse("artel token create --name ci").is_err());
    assert!(parse("artel token create --scopes read").is_err());
    let args = parse("artel token create --name ci --scopes read,submit --expires 30d").unwrap();
    let CliCommand::Client(ClientCommand::Token(TokenCommand::Create(create))) = args.command else {
        panic!("{args:?}")
    };
    assert_eq!((create.scopes, create.expires.as_deref()), (vec!["read".to_owned(), "submit".to_owned()], Some("30d")));
}
