//! Import circles between the files of a crate.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use super::tokens::{ItemPath, Items, Modules};

/// Exports that lead to exports: more than any crate of ours has.
const MAX_EXPORT_DEPTH: usize = 8;

type Module = Vec<String>;

/// Files that import each other, and the items by which they do.
#[derive(Debug)]
pub(super) struct ImportCircle(BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>);

impl fmt::Display for ImportCircle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.keys().map(|module| name(module)).collect();
        f.write_str(&names.join(", "))?;
        for (from, targets) in &self.0 {
            for (to, items) in targets {
                let items: Vec<&str> = items.iter().map(String::as_str).collect();
                write!(f, "\n    {} -> {}: {}", name(from), name(to), items.join(", "))?;
            }
        }
        Ok(())
    }
}

/// The name of a module in a message.
pub(super) fn name(module: &[String]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// The import circles of a crate.
pub(super) fn circles(modules: &Modules) -> Vec<ImportCircle> {
    let crate_items = CrateItems(modules.iter().map(|(module, tokens)| (module, tokens.items())).collect());
    let edges: BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>> =
        modules.keys().map(|module| (module, crate_items.imports_of(module))).collect();
    let reachable: HashMap<&Module, HashSet<&Module>> =
        modules.keys().map(|module| (module, reachable(module, &edges))).collect();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for module in modules.keys() {
        if seen.contains(module) || !reachable[module].contains(module) {
            continue;
        }
        let circle: Vec<&Module> =
            reachable[module].iter().copied().filter(|other| reachable[other].contains(module)).collect();
        let inside = |targets: &BTreeMap<Module, BTreeSet<String>>| {
            targets
                .iter()
                .filter(|(to, _)| circle.contains(to))
                .map(|(to, items)| (to.clone(), items.clone()))
                .collect()
        };
        found.push(ImportCircle(circle.iter().map(|from| ((*from).clone(), inside(&edges[*from]))).collect()));
        seen.extend(circle);
    }
    found
}

/// The modules that a module imports, directly or not.
fn reachable<'m>(
    from: &Module,
    edges: &'m BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>>,
) -> HashSet<&'m Module> {
    let (mut seen, mut open) = (HashSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for to in edges.get(module).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

/// The items of each file of a crate.
struct CrateItems<'m>(HashMap<&'m Module, Items>);

impl CrateItems<'_> {
    /// The files whose items a file names, with these items.
    fn imports_of(&self, module: &Module) -> BTreeMap<Module, BTreeSet<String>> {
        let items = &self.0[module];
        let aliases: HashMap<&str, &[String]> =
            items.imports.iter().map(|path| (path.alias.as_str(), path.parts.as_slice())).collect();
        let named = items.paths.iter().map(|path| match aliases.get(path[0].as_str()) {
            Some(parts) => [*parts, &path[1..]].concat(),
            None => path.clone(),
        });
        let paths = items.imports.iter().map(|path| path.parts.clone()).chain(named);
        let mut imports: BTreeMap<Module, BTreeSet<String>> = BTreeMap::new();
        for (defining, item) in paths.filter_map(|path| self.resolve(module, &path, 0)) {
            if defining != *module {
                imports.entry(defining).or_default().insert(item);
            }
        }
        imports
    }

    /// The file that defines what this path names, seen from a file; `None` for other crates and for modules as such.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<(Module, String)> {
        if depth > MAX_EXPORT_DEPTH {
            return None;
        }
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => (from.clone(), path),
            first if self.0.contains_key(&child(from, first)) => (from.clone(), path),
            _ => return None,
        };
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            module.pop();
            rest = after;
        }
        while let Some((first, after)) = rest.split_first()
            && self.0.contains_key(&child(&module, first))
        {
            module.push(first.clone());
            rest = after;
        }
        let (item, after) = rest.split_first().filter(|(item, _)| *item != "*")?;
        let items = self.0.get(&module)?;
        let is_defined = items.definitions.contains(item);
        match items.exports.iter().find(|export: &&ItemPath| export.alias == *item).filter(|_| !is_defined) {
            Some(export) => self.resolve(&module, &[&export.parts, after].concat(), depth + 1),
            None => Some((module, item.clone())),
        }
    }
}

fn child(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tokens::Tokens;
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let modules = files.iter().map(|(module, text)| {
            let module = module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (module, Tokens::parse(text, "a.rs").unwrap())
        });
        circles(&modules.collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_that_name_each_other_are_a_circle_also_through_an_export() {
        let files = [
            ("", "mod a; mod b; mod c; pub use b::B;"),
            ("a", "use crate::B; pub struct A;"),
            ("b", "use crate::c; pub struct B(c::C);"),
            ("c", "pub struct C(super::a::A);"),
        ];
        let circles = found(&files);
        assert_eq!(circles, ["a, b, c\n    a -> b: B\n    b -> c: C\n    c -> a: A"]);
    }

    #[test]
    fn a_parent_that_uses_a_child_that_uses_the_parent_is_one() {
        let files = [("", "mod a;"), ("a", "mod b; fn f() { b::g(); } struct S;"), ("a::b", "use super::S; fn g() {}")];
        assert_eq!(found(&files), ["a, a::b\n    a -> a::b: g\n    a::b -> a: S"]);
    }

    #[test]
    fn exports_modules_and_one_way_imports_are_none() {
        let files = [
            ("", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a", "use crate::b::{self, B}; pub struct A;"),
            ("b", "use std::fmt; pub struct B;"),
        ];
        assert!(found(&files).is_empty());
    }
}
