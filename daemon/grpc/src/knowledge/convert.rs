//! What is known of knowledge, as messages.

use std::time::{Duration, UNIX_EPOCH};

use artel_actors::knowledge::{DocumentChunk, KnowledgeState, Passage, SearchAnswer, SearchTimes, SourceRecord};
use artel_proto::v1;

pub(super) fn state(state: KnowledgeState) -> v1::KnowledgeStatus {
    let duration = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    v1::KnowledgeStatus {
        name: state.name,
        sources: state.sources,
        failed: state.failed,
        passages: state.passages,
        memory_bytes: state.memory_bytes,
        embedding_model: state.embedding_model.unwrap_or_default(),
        pending: state.pending,
        passages_per_second: state.passages_per_second,
        time_left: state.time_left.filter(|_| state.pending > 0).and_then(duration),
        problem: state.problem.unwrap_or_default(),
        polling: state.polling.unwrap_or_default(),
        rebuilding: state.is_rebuilding,
        stale: state.is_stale,
        warning: state.warning.unwrap_or_default(),
    }
}

pub(super) fn answer(answer: SearchAnswer, knowledge: &str) -> v1::SearchKnowledgeResponse {
    let SearchAnswer { passages, times, embedding_time, rerank_time, is_stale, .. } = answer;
    let SearchTimes { filter, keyword, vector, fusion, read } = times;
    let duration = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    let timings = v1::SearchTimings {
        embedding: duration(embedding_time),
        keyword: duration(keyword),
        vector: duration(vector),
        fusion: duration(filter + fusion + read),
        rerank: duration(rerank_time),
    };
    let found = |(rank, (found, rerank_score)): (u32, (Passage, Option<f32>))| {
        let source = artel_actors::knowledge::shown_source(&found.entry, &found.owner);
        v1::Passage {
            score: found.score.into(),
            keyword_score: found.keyword.map(f64::from),
            vector_score: found.vector.map(f64::from),
            rerank_score: rerank_score.map(f64::from),
            labels: found.labels.into_iter().collect(),
            ..passage(rank, &source, knowledge, found.chunk)
        }
    };
    let passages = (1..).zip(passages).map(found).collect();
    v1::SearchKnowledgeResponse { passages, timings: Some(timings), stale: is_stale }
}

/// A piece of a source, without scores.
pub(super) fn passage(rank: u32, source: &str, knowledge: &str, chunk: DocumentChunk) -> v1::Passage {
    v1::Passage {
        rank,
        source: source.to_owned(),
        knowledge: knowledge.to_owned(),
        first_line: *chunk.lines.start(),
        last_line: *chunk.lines.end(),
        page: chunk.page.unwrap_or(0),
        text: chunk.text,
        context: chunk.context,
        header: chunk.header.unwrap_or_default(),
        first_byte: chunk.bytes.start,
        end_byte: chunk.bytes.end,
        ..v1::Passage::default()
    }
}

pub(super) fn source(record: SourceRecord) -> v1::SourceStatus {
    let SourceRecord { source, entry } = record;
    let changed = u64::try_from(entry.meta.stat.mtime_ns).ok().filter(|nanos| *nanos > 0);
    let owner = &entry.meta.owner;
    v1::SourceStatus {
        source,
        reason: entry.reason.unwrap_or_default(),
        passages: entry.chunks,
        bytes: entry.meta.stat.bytes,
        sha256: entry.meta.hash.to_string(),
        changed_at: changed.map(|nanos| (UNIX_EPOCH + Duration::from_nanos(nanos)).into()),
        labels: entry.meta.labels.into_iter().collect(),
        owner: if entry.key.path().is_some() { String::new() } else { owner.to_string() },
    }
}
