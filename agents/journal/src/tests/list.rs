//! Lists: pages, filters and what a line shows.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The numbers of the tasks that a filter lets through, newest first.
async fn found(journal: &Journal, filter: Filter) -> Vec<u64> {
    let list = journal.list(filter, ALL).await.unwrap();
    list.iter().map(|summary| (0..100).find(|number| id(*number) == summary.task).unwrap()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_overlap() {
    let dir = temp();
    let journal = open(dir.path()).await;
    for number in [3, 1, 4, 0, 2] {
        journal.accept(first(id(number), request("?"))).await.unwrap();
    }
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = journal.list(Filter::default(), Page { before, size: 2 }).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        before = Some(last.task);
        seen.extend(page.iter().map(|summary| summary.task));
    }
    assert_eq!(seen, [id(4), id(3), id(2), id(1), id(0)]);
    assert_eq!(journal.list(Filter::default(), Page { before: None, size: 0 }).await.unwrap(), []);
}

#[tokio::test]
async fn a_line_shows_what_the_task_is() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let input = "ж".repeat(Summary::HEAD_CHARS + 1);
    let accepted =
        Accepted { role: RoleName::parse("gguf").ok(), labels: labels(&[("team", "red")]), ..keyed("key", &input) };
    journal.accept(first(id(1), accepted.clone())).await.unwrap();
    journal.append(vec![started(id(1), 2), completed(id(1), 3)]).await.unwrap();
    journal.accept(first(id(2), request("Short."))).await.unwrap();
    let expected = Summary {
        task: id(1),
        graph: accepted.graph.clone(),
        role: accepted.role.clone(),
        catalog: accepted.catalog.clone(),
        request: accepted.request.clone(),
        labels: accepted.labels.clone(),
        stage: Stage::Completed,
        created: Timestamp(1001),
        ended: Some(Timestamp(1003)),
        head: "ж".repeat(Summary::HEAD_CHARS),
        last: Seq(3),
    };
    let running = Summary {
        task: id(2),
        role: None,
        request: None,
        labels: BTreeMap::new(),
        stage: Stage::Running,
        ended: None,
        head: "Short.".to_owned(),
        last: Seq(1),
        ..expected.clone()
    };
    assert_eq!(journal.list(Filter::default(), ALL).await.unwrap(), [running, expected]);
}

#[tokio::test]
async fn stages_are_told_apart() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let failure = artel_task::event::Failure {
        code: artel_task::event::FailureCode::NoEdge,
        message: "no way on".to_owned(),
        step: None,
    };
    let ends = [
        None,
        Some(completed(id(1), 2).kind),
        Some(EventKind::Failed { failure }),
        Some(EventKind::Cancelled { reason: "Enough.".to_owned() }),
    ];
    for (end, number) in ends.into_iter().zip(0..) {
        journal.accept(first(id(number), request("?"))).await.unwrap();
        if let Some(end) = end {
            journal.append(vec![event(id(number), 2, end)]).await.unwrap();
        }
    }
    let stages = [Stage::Running, Stage::Completed, Stage::Failed, Stage::Cancelled];
    for (stage, number) in stages.into_iter().zip(0..) {
        assert_eq!(found(&journal, Filter { states: vec![stage], ..Filter::default() }).await, [number], "{stage:?}");
    }
    let ended = Filter { states: vec![Stage::Failed, Stage::Completed, Stage::Failed], ..Filter::default() };
    assert_eq!(found(&journal, ended).await, [2, 1]);
    assert_eq!(found(&journal, Filter { states: stages.to_vec(), ..Filter::default() }).await, [3, 2, 1, 0]);
    assert_eq!(journal.unfinished().await.unwrap(), [id(0)]);
}

#[tokio::test]
async fn unfinished_tasks_come_oldest_first() {
    let dir = temp();
    let journal = open(dir.path()).await;
    for number in [5, 2, 9, 7] {
        journal.accept(first(id(number), request("?"))).await.unwrap();
    }
    journal.append(vec![completed(id(7), 2)]).await.unwrap();
    assert_eq!(journal.unfinished().await.unwrap(), [id(2), id(5), id(9)]);
}

#[tokio::test]
async fn graphs_and_roles_are_told_apart() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let (council, gguf, lora) =
        (GraphName::parse("council").unwrap(), RoleName::parse("gguf").ok(), RoleName::parse("lora").ok());
    for (number, graph, role) in
        [(0, "mentor", &None), (1, "council", &None), (2, "gguf", &gguf), (3, "council", &gguf)]
    {
        let graph = GraphName::parse(graph).unwrap();
        journal.accept(first(id(number), Accepted { graph, role: role.clone(), ..request("?") })).await.unwrap();
    }
    let graph = Some(council);
    assert_eq!(found(&journal, Filter { graph: graph.clone(), ..Filter::default() }).await, [3, 1]);
    assert_eq!(found(&journal, Filter { role: gguf.clone(), ..Filter::default() }).await, [3, 2]);
    assert_eq!(found(&journal, Filter { graph, role: gguf, ..Filter::default() }).await, [3]);
    assert!(found(&journal, Filter { role: lora, ..Filter::default() }).await.is_empty());
}

#[tokio::test]
async fn a_task_needs_all_labels_of_the_filter() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let odd: &[(&str, &str)] = &[("a.b/c", "x"), ("quo\"te\n", "пи\\"), ("$", ""), ("100%", "5"), ("nil", "null")];
    let all: [&[(&str, &str)]; 5] =
        [&[], &[("team", "red")], &[("team", "red"), ("for", "me")], &[("team", "blue"), ("for", "red")], odd];
    for (pairs, number) in all.into_iter().zip(0..) {
        journal.accept(first(id(number), Accepted { labels: labels(pairs), ..request("?") })).await.unwrap();
    }
    let with =
        async |pairs: &[(&str, &str)]| found(&journal, Filter { labels: labels(pairs), ..Filter::default() }).await;
    assert_eq!(with(&[]).await, [4, 3, 2, 1, 0]);
    assert_eq!(with(&[("team", "red")]).await, [2, 1]);
    assert_eq!(with(&[("team", "red"), ("for", "me")]).await, [2]);
    assert!(with(&[("team", "blue"), ("for", "me")]).await.is_empty());
    assert!(with(&[("red", "team")]).await.is_empty());
    assert!(with(&[("team", "re")]).await.is_empty());
    assert_eq!(with(odd).await, [4]);
    for pair in odd {
        assert_eq!(with(&[*pair]).await, [4], "{pair:?}");
    }
    assert!(with(&[("a", "x")]).await.is_empty());
}

#[tokio::test]
async fn a_time_span_has_its_beginning_but_not_its_end() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let late = i64::MAX.unsigned_abs();
    for (at, number) in [0, 10, 20, late].into_iter().zip(0..) {
        let event = Event { at: Timestamp(at), ..first(id(number), request("?")) };
        journal.accept(event).await.unwrap();
    }
    let within = async |from: Option<u64>, before: Option<u64>| {
        let (created_from, created_before) = (from.map(Timestamp), before.map(Timestamp));
        found(&journal, Filter { created_from, created_before, ..Filter::default() }).await
    };
    assert_eq!(within(None, None).await, [3, 2, 1, 0]);
    assert_eq!(within(Some(10), None).await, [3, 2, 1]);
    assert_eq!(within(Some(11), None).await, [3, 2]);
    assert_eq!(within(None, Some(10)).await, [0]);
    assert_eq!(within(None, Some(11)).await, [1, 0]);
    assert_eq!(within(Some(10), Some(20)).await, [1]);
    assert!(within(Some(20), Some(10)).await.is_empty());
    assert_eq!(within(Some(21), Some(u64::MAX)).await, [3]);
}

#[tokio::test]
async fn filters_and_pages_work_together() {
    let dir = temp();
    let journal = open(dir.path()).await;
    for number in 0..6 {
        let labels = labels(&[("half", if number < 3 { "one" } else { "two" })]);
        journal.accept(first(id(number), Accepted { labels, ..request("?") })).await.unwrap();
    }
    journal.append(vec![completed(id(4), 2)]).await.unwrap();
    let filter = Filter { labels: labels(&[("half", "two")]), states: vec![Stage::Running], ..Filter::default() };
    let list = journal.list(filter.clone(), Page { before: None, size: 1 }).await.unwrap();
    assert_eq!(list.iter().map(|s| s.task).collect::<Vec<_>>(), [id(5)]);
    let list = journal.list(filter, Page { before: Some(id(5)), size: 9 }).await.unwrap();
    assert_eq!(list.iter().map(|s| s.task).collect::<Vec<_>>(), [id(3)]);
}
