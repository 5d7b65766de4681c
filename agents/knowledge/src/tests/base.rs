//! One generation of a base: entries and searches.

use artel_task::CallerName;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{AnswerThresholds, Error, FusionRule, HandedText, MAX_QUERY_BYTES, SearchFilter, SearchMode};

async fn with_base(dir: &TempDir) -> (Index, OpenedBase) {
    let index = open(dir).await;
    let base = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    (index, base)
}

async fn found(index: &Index, text: &str) -> Vec<String> {
    let keyword = SearchQuery { mode: SearchMode::Keyword, ..query("m", text) };
    let found = index.search("handbook", keyword).await.unwrap();
    texts(&found).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn an_entry_is_found_until_it_is_replaced_renamed_or_removed() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    put(&index, base, "m", "/docs/a.md", "A zebra runs.\n\nA lion sleeps.", meta("a")).await;
    put(&index, base, "m", "/docs/b.md", "A walrus swims.", meta("b")).await;
    assert_eq!(found(&index, "zebras").await, ["A zebra runs."]);
    put(&index, base, "m", "/docs/a.md", "A lion wakes.", meta("a2")).await;
    assert_eq!(found(&index, "zebra").await, [] as [&str; 0]);
    assert_eq!(found(&index, "lion").await, ["A lion wakes."]);
    assert!(index.rename(base, &key("/docs/a.md"), &key("/docs/b.md"), meta("a2")).await.unwrap());
    assert_eq!(found(&index, "walrus").await, [] as [&str; 0], "what it took the place of is gone");
    let result = index.search("handbook", query("m", "lion")).await.unwrap();
    assert_eq!(result.passages[0].entry, key("/docs/b.md"));
    index.remove(base, vec![key("/docs/b.md"), key("/docs/none.md")]).await.unwrap();
    assert_eq!(found(&index, "lion").await, [] as [&str; 0]);
    assert_eq!(index.stats(base.target).await.unwrap().chunks, 0);
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    put(&index, base, "m", "/docs/a.md", "First.\n\nA zebra\nruns far.", meta("a")).await;
    index.fail(base, &key("/docs/b.md"), meta("b"), "it is broken".into()).await.unwrap();
    let before = index.search("handbook", query("m", "zebra")).await.unwrap();
    let entries = index.entries(base.target).await.unwrap();
    index.close().await;
    let (index, base) = with_base(&dir).await;
    let after = index.search("handbook", query("m", "zebra")).await.unwrap();
    assert_eq!(after.passages, before.passages);
    assert_eq!(after.passages[0].chunk.lines, 3..=4);
    assert_eq!(after.passages[0].chunk.bytes, 8..25);
    assert_eq!(index.entries(base.target).await.unwrap(), entries);
    assert_eq!(entries[1].reason.as_deref(), Some("it is broken"));
    let stats = index.stats(base.target).await.unwrap();
    assert_eq!((stats.entries, stats.failed, stats.chunks), (2, 1, 2));
}

#[tokio::test]
async fn both_arms_and_their_scores_are_told() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    let text = "alpha beta\n\nalpha gamma\n\ndelta epsilon\n\nalpha alpha zeta\n\nbeta eta theta";
    put(&index, base, "m", "/docs/a.md", text, meta("a")).await;
    let hybrid = index.search("handbook", query("m", "alpha beta")).await.unwrap();
    assert_eq!(hybrid.rule, FusionRule::MinMax);
    assert_eq!(texts(&hybrid)[0], "alpha beta");
    let best = &hybrid.passages[0];
    assert!(best.vector.unwrap() > 0.95 && best.keyword == hybrid.best_keyword, "{best:?}");
    assert!(hybrid.is_answerable(AnswerThresholds { keyword: 100.0, vector: 0.9 }));
    assert!(!hybrid.is_answerable(AnswerThresholds { keyword: 100.0, vector: 1.1 }));
    let by_vector = SearchQuery { mode: SearchMode::Vector, top: 2, ..query("m", "delta epsilon") };
    let by_vector = index.search("handbook", by_vector).await.unwrap();
    assert_eq!((texts(&by_vector)[0], by_vector.passages.len()), ("delta epsilon", 2));
    assert_eq!(by_vector.passages[0].keyword, None);
    let other = index.search("handbook", query("another model", "delta")).await.unwrap();
    assert!(other.is_without_vectors && other.best_vector.is_none());
    assert_eq!(texts(&other), ["delta epsilon"]);
    let refused = SearchQuery { mode: SearchMode::Vector, ..SearchQuery::new("delta") };
    assert!(matches!(index.search("handbook", refused).await, Err(Error::NoVector { .. })));
    assert!(matches!(index.search("none", query("m", "a")).await, Err(Error::UnknownBase { .. })));
}

#[tokio::test]
async fn filters_choose_entries() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    let alice = CallerName::parse("alice").unwrap();
    let labels = EntryLabels::from([("lang".to_owned(), "ru".to_owned())]);
    put(&index, base, "m", "/docs/a.md", "one word", meta("a")).await;
    put(&index, base, "m", "/docs/sub/b.txt", "two word", EntryMeta { owner: alice.clone(), ..meta("b") }).await;
    put(
        &index,
        base,
        "m",
        "/papers/c.md",
        "three word",
        EntryMeta { source: "papers".into(), labels: labels.clone(), ..meta("c") },
    )
    .await;
    let found = async |filter: SearchFilter| {
        let result = index.search("handbook", SearchQuery { filter, ..query("m", "word") }).await.unwrap();
        let mut texts: Vec<_> = texts(&result).into_iter().map(str::to_owned).collect();
        texts.sort();
        texts
    };
    assert_eq!(found(SearchFilter::default()).await.len(), 3);
    assert_eq!(found(SearchFilter { sources: vec!["papers".into()], ..SearchFilter::default() }).await, ["three word"]);
    assert_eq!(
        found(SearchFilter { paths: vec!["*.md".into()], ..SearchFilter::default() }).await,
        ["one word", "three word"]
    );
    assert_eq!(
        found(SearchFilter { paths: vec!["/docs/**".into()], ..SearchFilter::default() }).await,
        ["one word", "two word"]
    );
    assert_eq!(found(SearchFilter { owners: vec![alice], ..SearchFilter::default() }).await, ["two word"]);
    assert_eq!(found(SearchFilter { labels, ..SearchFilter::default() }).await, ["three word"]);
    let none =
        SearchFilter { sources: vec!["papers".into()], paths: vec!["/docs/**".into()], ..SearchFilter::default() };
    assert_eq!(found(none).await, [] as [&str; 0]);
    let wrong = SearchQuery {
        filter: SearchFilter { paths: vec!["[".into()], ..SearchFilter::default() },
        ..query("m", "word")
    };
    assert!(matches!(index.search("handbook", wrong).await, Err(Error::Pattern { .. })));
}

#[tokio::test]
async fn requests_have_limits_that_name_the_field() {
    let dir = TempDir::new().unwrap();
    let (index, _) = with_base(&dir).await;
    let refused = async |query| match index.search("handbook", query).await {
        Err(Error::Limit { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(query("m", &"a".repeat(MAX_QUERY_BYTES + 1))).await, "query");
    assert_eq!(refused(SearchQuery { top: 100_000, ..query("m", "a") }).await, "top");
    let sources = vec![String::new(); 1000];
    assert_eq!(
        refused(SearchQuery { filter: SearchFilter { sources, ..SearchFilter::default() }, ..query("m", "a") }).await,
        "sources"
    );
    let text = HandedText {
        id: "a".into(),
        name: "a.md".into(),
        text: "a".repeat(5 << 20),
        owner: CallerName::owner(),
        labels: EntryLabels::new(),
    };
    assert!(matches!(index.put_text("handbook", text).await, Err(Error::Limit { field: "text", .. })));
}

#[tokio::test]
async fn any_text_can_be_searched_for() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    put(&index, base, "m", "/docs/a.md", "a \"zebra\" AND NOT NEAR(lion) 東京都 *", meta("a")).await;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let texts = prop_oneof!["[\"'*:^(){}\\-+ a-zAND\0]{0,40}", "\\PC{0,40}"];
        runner
            .run(&texts, |text| {
                let found = handle.block_on(index.search("handbook", query("m", &text)));
                prop_assert!(found.is_ok(), "{found:?}");
                Ok(())
            })
            .unwrap();
        assert_eq!(handle.block_on(found(&index, "NEAR(京都 OR")).len(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_search_sees_one_committed_state() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    // Both texts of one entry always tell the same number; a search that mixed two states would see two.
    let text = |n: u32| format!("left number{n}\n\nright number{n}");
    put(&index, base, "m", "/docs/a.md", &text(0), meta("0")).await;
    let writer = {
        let index = index.clone();
        tokio::spawn(async move {
            for n in 1..300 {
                put(&index, base, "m", "/docs/a.md", &text(n), meta(&n.to_string())).await;
            }
        })
    };
    let mut searches = 0;
    while !writer.is_finished() {
        let found = index.search("handbook", query("m", "left right")).await.unwrap();
        let numbers: Vec<_> = texts(&found).iter().map(|text| text.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(numbers.len(), 2, "{numbers:?}");
        assert_eq!(numbers[0], numbers[1]);
        searches += 1;
    }
    writer.await.unwrap();
    assert!(searches > 10, "{searches}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_on() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("knowledge.sqlite");
    let index = Index::open_with(&path, |connect| connect.pragma("max_page_count", "60")).await.unwrap();
    let base = index.open_base("handbook", &settings("m", "a")).await.unwrap();
    put(&index, base, "m", "/docs/a.md", "A zebra runs.", meta("a")).await;
    let long: String = (0..3000).map(|n| format!("word{n} and number{n}\n\n")).collect();
    let prepared: Vec<_> = chunks(&long).into_iter().map(|chunk| PreparedChunk::of(chunk, &[])).collect();
    let vectors: Vec<_> = prepared.iter().map(|chunk| (chunk.hash(), vec![1.0; WORD_DIMENSIONS])).collect();
    let full = index.store_embeddings(&ModelPrint::new("m"), vectors).await;
    assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    assert_eq!(found(&index, "zebra").await, ["A zebra runs."]);
    put(&index, base, "m", "/docs/a.md", "A lion runs.", meta("a")).await;
    assert_eq!(found(&index, "lion").await, ["A lion runs."], "what has room is written");
}

#[tokio::test]
async fn erased_text_is_in_no_file() {
    let dir = TempDir::new().unwrap();
    let (index, base) = with_base(&dir).await;
    let alice = CallerName::parse("alice").unwrap();
    put(&index, base, "m", "/docs/a.md", "Xylophonesecret is a word.", EntryMeta { owner: alice.clone(), ..meta("a") })
        .await;
    put(&index, base, "m", "/docs/b.md", "A zebra runs.", meta("b")).await;
    let note = HandedText {
        id: "note".into(),
        name: "note.md".into(),
        text: "Xylophonesecret again".into(),
        owner: alice.clone(),
        labels: EntryLabels::new(),
    };
    index.put_text("handbook", note).await.unwrap();
    assert_eq!(index.erase_owner(&alice).await.unwrap(), 1);
    assert_eq!(found(&index, "xylophonesecret").await, [] as [&str; 0]);
    assert_eq!(found(&index, "zebra").await, ["A zebra runs."]);
    assert_eq!(index.texts("handbook").await.unwrap(), []);
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(11).any(|part| part == b"Xylophonese"));
    }
}

#[tokio::test]
async fn a_database_of_something_else_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("knowledge.sqlite");
    std::fs::write(&path, "this is no database, but long enough to be looked at as one by SQLite").unwrap();
    assert!(matches!(Index::open(&path).await, Err(Error::Corrupt { .. })));
    std::fs::remove_file(&path).unwrap();
    let first = Index::open(&path).await.unwrap();
    assert!(matches!(Index::open(&path).await, Err(Error::Busy { .. })), "one process at a time");
    first.close().await;
}
