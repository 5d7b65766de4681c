//! What a model says of its memory: its KV cache, its layers on GPUs, its experts, and how long it stays loaded.

use std::time::Duration;

use artel_model::{CacheSize, ExpertPlacement, GpuLayers, KeepLoaded, KvCacheType};
use artel_yaml::{Diagnostics, YamlNode, YamlValue, did_you_mean, shown};

use crate::decode::{MapReader, choice, duration, integer, wrong};
use crate::keys;

/// The fewest tokens of a cache: the shortest context of one sequence.
const MIN_CACHE_TOKENS: u32 = 64;
/// The most tokens of a cache: the longest context for each of the most sequences.
const MAX_CACHE_TOKENS: u32 = 268_435_456;
/// The largest share, in percent, of free memory for a cache: buffers and other programs need some too.
const MAX_CACHE_PERCENT: u8 = 90;
/// The most layers: twice as many as the deepest models have.
const MAX_GPU_LAYERS: u32 = 1024;
/// The shortest time for which an idle model is kept: a shorter one would unload it between two steps of a task.
const MIN_KEEP_DURATION: Duration = Duration::from_secs(1);
/// The longest time for which an idle model is kept: longer ones are meant as `forever`.
const MAX_KEEP_DURATION: Duration = Duration::from_secs(30 * 86_400);

/// The type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheSetting {
    /// The type of dequantized weights, so that one kernel reads both; otherwise `f16`. In a catalog, no model with this
    /// value has a role with `overflow: shift`.
    #[default]
    Auto,
    /// This type.
    Fixed(KvCacheType),
}

impl CacheSetting {
    /// The type, where `auto` stands for this one.
    pub fn or(self, auto: KvCacheType) -> KvCacheType {
        match self {
            Self::Auto => auto,
            Self::Fixed(kind) => kind,
        }
    }
}

/// `cache`: a type, or a map of a size and a type.
pub(crate) fn cache(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<(CacheSetting, CacheSize)> {
    if !matches!(node.value, YamlValue::Map(_)) {
        return Some((cache_type(node, "`cache`", report)?, CacheSize::Fitting));
    }
    let mut f = MapReader::open(node, "`cache`", &keys::CACHE, report)?;
    let (tokens, share) = (f.get("tokens"), f.get("share"));
    if let (Some(_), Some(share)) = (tokens, share) {
        let message = "`cache` has both `tokens` and `share`; its size is one or the other";
        report.error(share.span, message);
    }
    let tokens = tokens.map(|n| integer(n, "`tokens`", MIN_CACHE_TOKENS..=MAX_CACHE_TOKENS, report));
    let share = share.map(|n| percent(n, report));
    let kind = f.get("type").map_or(Some(CacheSetting::Auto), |n| cache_type(n, "`type`", report));
    f.finish(&[], report);
    let size = match (tokens, share) {
        (Some(tokens), _) => CacheSize::Tokens(tokens?),
        (None, Some(percent)) => CacheSize::Percent(percent?),
        (None, None) => CacheSize::Fitting,
    };
    Some((kind?, size))
}

fn cache_type(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<CacheSetting> {
    let types = KvCacheType::ALL.map(|kind| (kind.as_str(), CacheSetting::Fixed(kind)));
    let words: Vec<_> = [("auto", CacheSetting::Auto)].into_iter().chain(types).collect();
    choice(node, what, &words, report)
}

/// A whole number of percent, such as `50%`.
fn percent(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<u8> {
    let range = format!("`share` is from 1% to {MAX_CACHE_PERCENT}% of the free memory");
    let given = match &node.value {
        YamlValue::Str(text, _) => text.clone(),
        YamlValue::Int(number) => {
            report.error_with_hint(node.span, format!("{range}, and {number} has no `%`"), "write `50%`");
            return None;
        }
        _ => {
            wrong(node, &range, report);
            return None;
        }
    };
    let number = given.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let percent =
        number.and_then(|digits| digits.parse().ok()).filter(|percent| (1..=MAX_CACHE_PERCENT).contains(percent));
    if percent.is_none() {
        report.error_with_hint(node.span, format!("{range}, not `{}`", shown(&given)), "write `50%`");
    }
    percent
}

/// `gpu_layers`: `auto`, or a number.
pub(crate) fn gpu_layers(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<GpuLayers> {
    match &node.value {
        YamlValue::Str(word, _) if word == "auto" => Some(GpuLayers::Auto),
        YamlValue::Int(_) | YamlValue::Float(_) => {
            integer(node, "`gpu_layers`", 0..=MAX_GPU_LAYERS, report).map(GpuLayers::Count)
        }
        _ => {
            wrong(node, &format!("`gpu_layers` is `auto` or a whole number from 0 to {MAX_GPU_LAYERS}"), report);
            None
        }
    }
}

/// `experts`: where those of a mixture of experts are computed.
pub(crate) fn experts(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<ExpertPlacement> {
    choice(node, "`experts`", &[("auto", ExpertPlacement::Auto), ("cpu", ExpertPlacement::Cpu)], report)
}

/// `keep`: how long a model that nothing needs stays loaded.
pub(crate) fn keep(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<KeepLoaded> {
    if let YamlValue::Str(word, _) = &node.value {
        if word == "forever" {
            return Some(KeepLoaded::Forever);
        }
        if let Some(hint) = did_you_mean(word, ["forever"]) {
            report.error_with_hint(
                node.span,
                format!("`keep` is a duration or `forever`, not `{}`", shown(word)),
                hint,
            );
            return None;
        }
    }
    duration(node, "`keep` that is not `forever`", MIN_KEEP_DURATION..=MAX_KEEP_DURATION, report).map(KeepLoaded::For)
}
