//! The public contract `artel.v1` compared with the one recorded in `recorded/artel.v1.txt`.
//!
//! Clients in other languages are compiled from older protos. A removed or changed message, field, number, type, enum value or
//! method would break them, so it fails here and is never recorded. An addition is recorded with
//! `ARTEL_RECORD_CONTRACT=1 cargo test -p artel-proto`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const PACKAGE: &str = "artel.v1";
/// If set, additions are recorded.
const RECORD_VARIABLE: &str = "ARTEL_RECORD_CONTRACT";

/// Elements of the contract by kind and full name, such as `field artel.v1.Task.id`, each with its number or type.
type Contract = BTreeMap<String, String>;

#[test]
fn the_contract_only_grows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/artel.v1.txt");
    let compiled = contract(&FileDescriptorSet::decode(artel_proto::FILE_DESCRIPTOR_SET).unwrap());
    let recorded = parse(&fs::read_to_string(&path).unwrap_or_default());
    let breaking = breaking(&recorded, &compiled);
    assert!(breaking.is_empty(), "artel.v1 would break its clients:\n{}", breaking.join("\n"));
    if env::var_os(RECORD_VARIABLE).is_some() {
        fs::write(&path, text(&compiled)).unwrap();
        return;
    }
    let added: Vec<&str> = compiled.keys().filter(|key| !recorded.contains_key(*key)).map(String::as_str).collect();
    assert!(
        added.is_empty(),
        "not recorded yet; run `{RECORD_VARIABLE}=1 cargo test -p artel-proto` and commit {}:\n{}",
        path.display(),
        added.join("\n")
    );
}

#[test]
fn removals_and_changes_are_breaking_and_additions_are_not() {
    let recorded =
        parse("field artel.v1.Task.id = 1 string\nfield artel.v1.Task.state = 4 string\nmessage artel.v1.Task\n");
    let compiled =
        parse("field artel.v1.Task.id = 2 string\nfield artel.v1.Task.new = 9 string\nmessage artel.v1.Task\n");
    let expected = [
        "changed: field artel.v1.Task.id: recorded `1 string`, compiled `2 string`",
        "removed: field artel.v1.Task.state = 4 string",
    ];
    assert_eq!(breaking(&recorded, &compiled), expected);
    assert!(breaking(&recorded, &recorded).is_empty());
}

/// What a client compiled from the recorded contract would miss.
fn breaking(recorded: &Contract, compiled: &Contract) -> Vec<String> {
    let problem = |(key, old): (&String, &String)| match compiled.get(key) {
        None => Some(format!("removed: {}", line(key, old))),
        Some(new) if new != old => Some(format!("changed: {key}: recorded `{old}`, compiled `{new}`")),
        Some(_) => None,
    };
    recorded.iter().filter_map(problem).collect()
}

fn line(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} = {value}") }
}

fn text(contract: &Contract) -> String {
    contract.iter().fold(String::new(), |mut text, (key, value)| {
        writeln!(text, "{}", line(key, value)).unwrap();
        text
    })
}

fn parse(text: &str) -> Contract {
    let element = |line: &str| {
        let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
        (key.to_owned(), value.to_owned())
    };
    text.lines().map(element).collect()
}

fn contract(set: &FileDescriptorSet) -> Contract {
    let mut contract = Contract::new();
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        file.message_type.iter().for_each(|message| add_message(&mut contract, PACKAGE, message));
        file.enum_type.iter().for_each(|values| add_enum(&mut contract, PACKAGE, values));
        file.service.iter().for_each(|service| add_service(&mut contract, service));
    }
    contract
}

fn add_message(contract: &mut Contract, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let value = format!("{} {}", field.number(), field_type(message, field));
        contract.insert(format!("field {name}.{}", field.name()), value);
    }
    message
        .nested_type
        .iter()
        .filter(|nested| !is_map_entry(nested))
        .for_each(|nested| add_message(contract, &name, nested));
    message.enum_type.iter().for_each(|values| add_enum(contract, &name, values));
    contract.insert(format!("message {name}"), String::new());
}

fn add_enum(contract: &mut Contract, scope: &str, values: &EnumDescriptorProto) {
    let name = format!("{scope}.{}", values.name());
    for value in &values.value {
        contract.insert(format!("value {name}.{}", value.name()), value.number().to_string());
    }
    contract.insert(format!("enum {name}"), String::new());
}

fn add_service(contract: &mut Contract, service: &ServiceDescriptorProto) {
    let name = format!("{PACKAGE}.{}", service.name());
    for method in &service.method {
        let stream = |streams: bool| if streams { "stream " } else { "" };
        let (input, output) =
            (method.input_type().trim_start_matches('.'), method.output_type().trim_start_matches('.'));
        let (sends, receives) = (stream(method.client_streaming()), stream(method.server_streaming()));
        contract.insert(format!("method {name}.{}", method.name()), format!("{sends}{input} -> {receives}{output}"));
    }
    contract.insert(format!("service {name}"), String::new());
}

/// The type as the proto has it, with `repeated`, `optional` or the name of its `oneof`.
fn field_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    if let Some(entry) = message.nested_type.iter().find(|entry| is_entry_of(entry, message, field)) {
        return format!("map<{}, {}>", type_name(&entry.field[0]), type_name(&entry.field[1]));
    }
    let name = type_name(field);
    match field.oneof_index {
        _ if field.label() == Label::Repeated => format!("repeated {name}"),
        _ if field.proto3_optional() => format!("optional {name}"),
        Some(index) => format!("{name} in oneof {}", message.oneof_decl[usize::try_from(index).unwrap()].name()),
        None => name,
    }
}

fn is_entry_of(entry: &DescriptorProto, message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    is_map_entry(entry) && field.type_name().ends_with(&format!(".{}.{}", message.name(), entry.name()))
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
