//! Source code: the places and names of its functions, types and modules.

use tree_sitter::{Language, Node, Parser};

use crate::format::SourceLanguage;
use crate::outline::{OutlineEntry, title};

/// Text deeper than that is data that looks like code.
const MAX_DEFINITION_DEPTH: usize = 64;

/// The grammar of a language.
fn grammar(language: SourceLanguage) -> Language {
    match language {
        SourceLanguage::Rust => tree_sitter_rust::LANGUAGE,
        SourceLanguage::Python => tree_sitter_python::LANGUAGE,
        SourceLanguage::JavaScript => tree_sitter_javascript::LANGUAGE,
        SourceLanguage::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
        SourceLanguage::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
        SourceLanguage::Go => tree_sitter_go::LANGUAGE,
        SourceLanguage::C => tree_sitter_c::LANGUAGE,
    }
    .into()
}

/// The definitions of a file, those within others behind them. A file that breaks the grammar has those that are left.
pub(super) fn definitions(text: &str, language: SourceLanguage) -> Vec<OutlineEntry> {
    let mut parser = Parser::new();
    if parser.set_language(&grammar(language)).is_err() {
        return Vec::new();
    }
    let Some(tree) = parser.parse(text, None) else { return Vec::new() };
    let (mut entries, mut cursor, mut depth) = (Vec::new(), tree.walk(), 0);
    loop {
        let node = cursor.node();
        if let Some(name) = definition_name(node, text) {
            entries.push(OutlineEntry { range: node.byte_range(), title: name });
        }
        if depth < MAX_DEFINITION_DEPTH && cursor.goto_first_child() {
            depth += 1;
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return entries;
            }
            depth -= 1;
        }
    }
}

/// The name of a node that defines something with a body.
fn definition_name(node: Node<'_>, text: &str) -> Option<String> {
    let field = match node.kind() {
        "function_item" | "struct_item" | "enum_item" | "union_item" | "trait_item" | "mod_item"
        | "macro_definition" => "name",
        "impl_item" => "type",
        "function_definition" => {
            // In C the name stands within declarators: `int *f(void)`.
            node.child_by_field_name("name").map_or("declarator", |_| "name")
        }
        "class_definition" | "class_declaration" | "function_declaration" | "generator_function_declaration" => "name",
        "method_definition" | "method_declaration" | "interface_declaration" | "abstract_class_declaration" => "name",
        "enum_declaration" | "internal_module" | "type_spec" => "name",
        "struct_specifier" | "enum_specifier" | "union_specifier" => {
            node.child_by_field_name("body")?;
            "name"
        }
        _ => return None,
    };
    let mut name = node.child_by_field_name(field)?;
    while let Some(inner) = name.child_by_field_name("declarator") {
        name = inner;
    }
    let name = title(text.get(name.byte_range())?);
    Some(match node.child_by_field_name("trait").and_then(|of| text.get(of.byte_range())) {
        Some(of) if node.kind() == "impl_item" => format!("{} for {name}", title(of)),
        _ => name,
    })
}
