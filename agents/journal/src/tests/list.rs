//! Lists: pages, filters and the fields of an entry.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The numbers of the tasks that match a filter, newest first.
async fn found(journal: &Journal, filter: TaskFilter) -> Vec<u64> {
    let list = entries(journal, filter, ALL_TASKS).await;
    list.iter().map(|summary| (0..100).find(|number| id(*number) == summary.task).unwrap()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_overlap() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in [3, 1, 4, 0, 2] {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
    }
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = entries(&journal, TaskFilter::default(), TaskPage { before, size: 2 }).await;
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        before = Some(last.task);
        seen.extend(page.iter().map(|summary| summary.task));
    }
    assert_eq!(seen, [id(4), id(3), id(2), id(1), id(0)]);
    assert_eq!(entries(&journal, TaskFilter::default(), TaskPage { before: None, size: 0 }).await, []);
}

#[tokio::test]
async fn an_entry_describes_its_task() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let input = "ж".repeat(TaskSummary::HEAD_CHARS + 1);
    let submitted = TaskSpec {
        role: RoleName::parse("gguf").ok(),
        labels: labels(&[("team", "red")]),
        ..spec_with_id("key", &input)
    };
    journal.accept(first(id(1), submitted.clone())).await.unwrap();
    journal.append(vec![started(id(1), 2), completed(id(1), 3)]).await.unwrap();
    journal.accept(first(id(2), spec("Short."))).await.unwrap();
    let expected = TaskSummary {
        task: id(1),
        graph: submitted.graph.clone(),
        role: submitted.role.clone(),
        owner: submitted.owner.clone(),
        catalog: submitted.catalog.clone(),
        request: submitted.request.clone(),
        labels: submitted.labels.clone(),
        status: TaskStatus::Completed,
        created: Timestamp(1001),
        ended: Some(Timestamp(1003)),
        input_head: "ж".repeat(TaskSummary::HEAD_CHARS),
        last_seq: Seq(3),
    };
    let running = TaskSummary {
        task: id(2),
        role: None,
        request: None,
        labels: BTreeMap::new(),
        status: TaskStatus::Running,
        ended: None,
        input_head: "Short.".to_owned(),
        last_seq: Seq(1),
        ..expected.clone()
    };
    assert_eq!(entries(&journal, TaskFilter::default(), ALL_TASKS).await, [running, expected]);
}

#[tokio::test]
async fn statuses_are_distinguished() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let failure = artel_task::event::Failure {
        code: artel_task::event::FailureCode::NoEdge,
        message: "no edge matches".to_owned(),
        step: None,
    };
    let ends = [
        None,
        Some(completed(id(1), 2).kind),
        Some(EventKind::Failed { failure }),
        Some(EventKind::Cancelled { reason: "Enough.".to_owned(), partial: Vec::new() }),
    ];
    for (end, number) in ends.into_iter().zip(0..) {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
        if let Some(end) = end {
            journal.append(vec![event(id(number), 2, end)]).await.unwrap();
        }
    }
    let statuses = [TaskStatus::Running, TaskStatus::Completed, TaskStatus::Failed, TaskStatus::Cancelled];
    for (status, number) in statuses.into_iter().zip(0..) {
        assert_eq!(
            found(&journal, TaskFilter { statuses: vec![status], ..TaskFilter::default() }).await,
            [number],
            "{status:?}"
        );
    }
    let ended = TaskFilter {
        statuses: vec![TaskStatus::Failed, TaskStatus::Completed, TaskStatus::Failed],
        ..TaskFilter::default()
    };
    assert_eq!(found(&journal, ended).await, [2, 1]);
    assert_eq!(
        found(&journal, TaskFilter { statuses: statuses.to_vec(), ..TaskFilter::default() }).await,
        [3, 2, 1, 0]
    );
    assert_eq!(journal.unfinished().await.unwrap(), [id(0)]);
}

#[tokio::test]
async fn unfinished_tasks_come_oldest_first() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in [5, 2, 9, 7] {
        journal.accept(first(id(number), spec("?"))).await.unwrap();
    }
    journal.append(vec![completed(id(7), 2)]).await.unwrap();
    assert_eq!(journal.unfinished().await.unwrap(), [id(2), id(5), id(9)]);
}

#[tokio::test]
async fn graphs_and_roles_are_distinguished() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let (council, gguf, lora) =
        (GraphName::parse("council").unwrap(), RoleName::parse("gguf").ok(), RoleName::parse("lora").ok());
    for (number, graph, role) in
        [(0, "mentor", &None), (1, "council", &None), (2, "gguf", &gguf), (3, "council", &gguf)]
    {
        let graph = GraphName::parse(graph).unwrap();
        journal.accept(first(id(number), TaskSpec { graph, role: role.clone(), ..spec("?") })).await.unwrap();
    }
    let graph = Some(council);
    assert_eq!(found(&journal, TaskFilter { graph: graph.clone(), ..TaskFilter::default() }).await, [3, 1]);
    assert_eq!(found(&journal, TaskFilter { role: gguf.clone(), ..TaskFilter::default() }).await, [3, 2]);
    assert_eq!(found(&journal, TaskFilter { graph, role: gguf, ..TaskFilter::default() }).await, [3]);
    assert!(found(&journal, TaskFilter { role: lora, ..TaskFilter::default() }).await.is_empty());
}

#[tokio::test]
async fn a_task_needs_all_labels_of_the_filter() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let odd: &[(&str, &str)] = &[("a.b/c", "x"), ("quo\"te\n", "пи\\"), ("$", ""), ("100%", "5"), ("nil", "null")];
    let all: [&[(&str, &str)]; 5] =
        [&[], &[("team", "red")], &[("team", "red"), ("for", "me")], &[("team", "blue"), ("for", "red")], odd];
    for (pairs, number) in all.into_iter().zip(0..) {
        journal.accept(first(id(number), TaskSpec { labels: labels(pairs), ..spec("?") })).await.unwrap();
    }
    let with = async |pairs: &[(&str, &str)]| {
        found(&journal, TaskFilter { labels: labels(pairs), ..TaskFilter::default() }).await
    };
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
async fn a_time_span_includes_its_start_and_excludes_its_end() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let late = i64::MAX.unsigned_abs();
    for (at, number) in [0, 10, 20, late].into_iter().zip(0..) {
        let event = Event { at: Timestamp(at), ..first(id(number), spec("?")) };
        journal.accept(event).await.unwrap();
    }
    let within = async |from: Option<u64>, before: Option<u64>| {
        let (created_from, created_before) = (from.map(Timestamp), before.map(Timestamp));
        found(&journal, TaskFilter { created_from, created_before, ..TaskFilter::default() }).await
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
async fn filters_and_pages_are_combined() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 0..6 {
        let labels = labels(&[("half", if number < 3 { "one" } else { "two" })]);
        journal.accept(first(id(number), TaskSpec { labels, ..spec("?") })).await.unwrap();
    }
    journal.append(vec![completed(id(4), 2)]).await.unwrap();
    let filter =
        TaskFilter { labels: labels(&[("half", "two")]), statuses: vec![TaskStatus::Running], ..TaskFilter::default() };
    let list = entries(&journal, filter.clone(), TaskPage { before: None, size: 1 }).await;
    assert_eq!(list.iter().map(|s| s.task).collect::<Vec<_>>(), [id(5)]);
    let list = entries(&journal, filter, TaskPage { before: Some(id(5)), size: 9 }).await;
    assert_eq!(list.iter().map(|s| s.task).collect::<Vec<_>>(), [id(3)]);
}
