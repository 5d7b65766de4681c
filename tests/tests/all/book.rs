//! The pages of the book and README: their commands run, and their links lead somewhere.

use std::path::Path;

use artel_tests::{book, repository};

const MAX_SKIPPED_BLOCKS: usize = 12;
/// Of the shell's trace, enough to see the command that failed and what it printed.
const MAX_TRACE_LINES: usize = 60;

/// A test for each page with commands, and the list of these pages.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];

        $(#[test]
        fn $test() {
            assert_commands_succeed($page);
        })*
    };
}

pages! {
    the_commands_of_readme_succeed: "README.md",
    the_commands_of_the_tutorial_succeed: "docs/book/src/tutorial.md",
    the_commands_of_the_page_on_init_succeed: "docs/book/src/init.md",
    the_commands_of_the_concepts_succeed: "docs/book/src/concepts.md",
    the_commands_of_the_page_on_answers_succeed: "docs/book/src/answers.md",
    the_commands_of_the_page_on_roles_succeed: "docs/book/src/reference/roles.md",
    the_commands_of_the_page_on_models_succeed: "docs/book/src/reference/models.md",
    the_commands_of_the_page_on_graphs_succeed: "docs/book/src/reference/graphs.md",
    the_commands_of_the_page_on_knowledge_succeed: "docs/book/src/knowledge.md",
    the_commands_of_the_reference_on_knowledge_succeed: "docs/book/src/reference/knowledge.md",
    the_commands_of_the_reference_on_trainings_succeed: "docs/book/src/reference/training.md",
    the_commands_of_the_page_on_routers_succeed: "docs/book/src/reference/routers.md",
    the_commands_of_the_page_on_settings_succeed: "docs/book/src/reference/settings.md",
    the_commands_of_the_page_on_placement_succeed: "docs/book/src/placement.md",
    the_commands_of_the_page_on_scheduling_succeed: "docs/book/src/scheduling.md",
    the_commands_of_the_page_on_durability_succeed: "docs/book/src/durability.md",
    the_commands_of_the_page_on_access_succeed: "docs/book/src/access.md",
    the_commands_of_the_page_on_operations_succeed: "docs/book/src/operations.md",
    the_commands_of_the_page_on_benchmarks_succeed: "docs/book/src/benchmarks.md",
    the_commands_of_the_page_on_limits_succeed: "docs/book/src/limits.md",
    the_commands_of_the_page_on_clients_succeed: "docs/book/src/clients/overview.md",
    the_commands_of_the_page_on_curl_succeed: "docs/book/src/clients/curl.md",
}

fn assert_commands_succeed(page: &str) {
    assert!(repository().join(page).is_file(), "{page} is missing");
    // A page without commands has nothing to run.
    let Some(output) = book::run(Path::new(page)) else { return };
    let trace = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(MAX_TRACE_LINES)..].join("\n");
    assert!(output.status.success(), "{page}: {}\n{tail}", output.status);
}

#[test]
fn every_page_with_commands_has_its_test() {
    for page in book::pages() {
        let has_commands = book::blocks(&page).iter().any(|block| block.language == "sh" && block.skip.is_none());
        assert!(
            !has_commands || PAGES.iter().any(|listed| Path::new(listed) == page),
            "add {} to `pages!`",
            page.display()
        );
    }
}

#[test]
fn few_blocks_are_skipped_and_each_for_a_known_reason() {
    for page in book::pages() {
        for reason in book::blocks(&page).into_iter().filter_map(|block| block.skip) {
            let is_known = book::REASONS.iter().any(|(known, _)| *known == reason);
            assert!(is_known, "{}: `skip-{reason}` is none of {:?}", page.display(), book::REASONS);
        }
    }
    let (runnable, skipped) = book::count();
    println!("{runnable} blocks of commands run; skipped: {skipped:?}");
    let skipped: usize = skipped.values().sum();
    assert!(skipped <= MAX_SKIPPED_BLOCKS, "{skipped} blocks are skipped, at most {MAX_SKIPPED_BLOCKS} may be");
}

/// The targets of a page's links, outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    let outside_of_code = prose.flat_map(|line| line.split('`').step_by(2));
    let targets = outside_of_code.flat_map(|part| part.split("](").skip(1));
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The path that a link leads to, without the heading or the title; `None` for a link to a site or within its page.
fn relative_path(link: &str) -> Option<&str> {
    let is_url = link.contains("://") || link.starts_with("mailto:");
    let path = link.split([' ', '#']).next()?;
    (!is_url && !path.is_empty()).then_some(path)
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in book::pages() {
        let text = std::fs::read_to_string(repository().join(&page)).unwrap();
        let dir = repository().join(page.parent().unwrap());
        let missing = links(&text).into_iter().filter_map(relative_path).filter(|path| !dir.join(path).exists());
        broken.extend(missing.map(|path| format!("{}: {path}", page.display())));
    }
    assert!(broken.is_empty(), "links to no file:\n{}", broken.join("\n"));
}

#[test]
fn links_are_found_in_prose_alone() {
    let text = "See [`a`](a.md), [b](../b.md#c \"B\") and [d](https://d.example).\n\
                ```sh\n[e](e.md)\n```\n`[f](f.md)` [g](#g)\n";
    assert_eq!(links(text), ["a.md", "../b.md#c \"B\"", "https://d.example", "#g"]);
    let paths: Vec<&str> = links(text).into_iter().filter_map(relative_path).collect();
    assert_eq!(paths, ["a.md", "../b.md"]);
}
