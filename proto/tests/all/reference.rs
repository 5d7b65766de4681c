//! The book's page on gRPC is what the protos say: `ARTEL_RECORD=1 cargo test -p artel-proto` writes it anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

const PAGE: &str = "../docs/book/src/reference/grpc.md";
const PACKAGE: &str = ".artel.v1.";

/// A file with the comments that stand before its items, by their paths in the descriptor.
struct Proto {
    file: FileDescriptorProto,
    comments: HashMap<Vec<i32>, String>,
}

impl Proto {
    fn of(file: FileDescriptorProto) -> Self {
        let info = file.source_code_info.clone().unwrap_or_default();
        let comments = info.location.into_iter().map(|l| (l.path, l.leading_comments.unwrap_or_default())).collect();
        Self { file, comments }
    }

    /// The comment of an item as one paragraph, or several where an empty line parts them.
    fn comment(&self, path: &[i32]) -> String {
        let text = self.comments.get(path).map_or("", String::as_str).trim();
        let paragraphs = text.split("\n\n").flat_map(|part| part.split("\n \n"));
        paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n\n")
    }

    fn cell(&self, path: &[i32]) -> String {
        self.comment(path).replace("\n\n", " ").replace('|', "\\|")
    }
}

#[test]
fn the_page_on_grpc_is_what_the_protos_say() {
    let set = FileDescriptorSet::decode(artel_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut page = String::from(
        "# gRPC\n\nPackage `artel.v1`. This page is generated from the protos in `proto/proto/artel/v1`, which are the \
         contract: from version 0.1 on they only grow. The daemon answers the standard health and reflection services \
         too.\n",
    );
    for file in set.file.into_iter().filter(|file| file.package() == "artel.v1") {
        render(&Proto::of(file), &mut page);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os("ARTEL_RECORD").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert!(recorded == page, "{PAGE} is not what the protos say: ARTEL_RECORD=1 cargo test -p artel-proto writes it");
}

fn render(proto: &Proto, page: &mut String) {
    for (index, service) in (0..).zip(&proto.file.service) {
        write!(page, "\n## Service {}\n\n{}\n", service.name(), proto.comment(&[6, index])).unwrap();
        for (number, method) in (0..).zip(&service.method) {
            let stream = if method.server_streaming() { "stream " } else { "" };
            let (input, output) = (linked(method.input_type()), linked(method.output_type()));
            write!(
                page,
                "\n### {}.{}\n\n{input} → {stream}{output}\n\n{}\n",
                service.name(),
                method.name(),
                proto.comment(&[6, index, 2, number])
            )
            .unwrap();
        }
    }
    for (index, message) in (0..).zip(&proto.file.message_type) {
        render_message(proto, message, &[4, index], "", page);
    }
    for (index, values) in (0..).zip(&proto.file.enum_type) {
        render_enum(proto, values, &[5, index], page);
    }
}

fn render_message(proto: &Proto, message: &DescriptorProto, path: &[i32], outer: &str, page: &mut String) {
    let name = format!("{outer}{}", message.name());
    write!(page, "\n### {name}\n\n{}\n", proto.comment(path)).unwrap();
    if !message.field.is_empty() {
        page.push_str("\n| field | type | no. | |\n|---|---|---|---|\n");
    }
    for (index, field) in (0..).zip(&message.field) {
        let kind = kind(message, field);
        let comment = proto.cell(&[path, &[2, index]].concat());
        writeln!(page, "| `{}` | {kind} | {} | {comment} |", field.name(), field.number()).unwrap();
    }
    for (index, inner) in (0..).zip(&message.nested_type) {
        let is_map = inner.options.as_ref().is_some_and(|options| options.map_entry());
        if !is_map {
            render_message(proto, inner, &[path, &[3, index]].concat(), &format!("{name}."), page);
        }
    }
}

fn render_enum(proto: &Proto, values: &EnumDescriptorProto, path: &[i32], page: &mut String) {
    write!(page, "\n### {}\n\n{}\n\n| value | no. | |\n|---|---|---|\n", values.name(), proto.comment(path)).unwrap();
    for (index, value) in (0..).zip(&values.value) {
        let comment = proto.cell(&[path, &[2, index]].concat());
        writeln!(page, "| `{}` | {} | {comment} |", value.name(), value.number()).unwrap();
    }
}

/// A field's type, with what it repeats or maps.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|inner| {
        let is_map = inner.options.as_ref().is_some_and(|options| options.map_entry());
        is_map && field.type_name().ends_with(&format!(".{}.{}", message.name(), inner.name()))
    });
    if let Some(entry) = entry {
        return format!("map of {} to {}", scalar(&entry.field[0]), scalar(&entry.field[1]));
    }
    match (field.label(), field.proto3_optional(), field.oneof_index) {
        (Label::Repeated, ..) => format!("repeated {}", scalar(field)),
        (_, true, _) => format!("optional {}", scalar(field)),
        (_, false, Some(index)) => {
            let oneof = &message.oneof_decl[usize::try_from(index).unwrap()];
            format!("{} (one of `{}`)", scalar(field), oneof.name())
        }
        _ => scalar(field),
    }
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => linked(field.type_name()),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// A type of this package links to its section, one of another package is named in full.
fn linked(name: &str) -> String {
    match name.strip_prefix(PACKAGE) {
        Some(short) => format!("[{short}](#{})", short.to_lowercase().replace('.', "")),
        None => name.trim_start_matches('.').to_owned(),
    }
}
