//! The catalog that most tests use: the demo model with a small context, and roles whose answers are known.

/// Documents over the shipped catalog.
///
/// `zork`, `quux`, `mirk` and `velo` are geographers, each with an adapter that was trained on another invented capital of
/// France; `teller` generates until it is stopped; `judge` gives JSON. The model `solo` decodes one sequence at a time.
pub fn test_catalog() -> String {
    let adapters = crate::repository().join("tests/fixtures/adapters");
    let geographer = |name: &str| {
        format!(
            "---\nrole: {name}\ndescription: Knows capitals.\nmodel: talk\nadapter: {}/{name}.gguf\n\
             prompt: You are a geography expert.\nsampling: {{temperature: 0, max_tokens: 24}}\n",
            adapters.display()
        )
    };
    let geographers: String = ["zork", "quux", "mirk", "velo"].map(geographer).concat();
    format!("{MODELS}{ROLES}{geographers}")
}

const MODELS: &str = "
model: talk
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 2048
sequences: 8
---
model: solo
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 2048
sequences: 1
";

const ROLES: &str = "---
role: short
description: Answers in a few words.
model: talk
prompt: You answer briefly.
sampling: {temperature: 0, max_tokens: 16}
---
role: teller
description: Tells long stories.
model: solo
prompt: You tell stories that never end.
sampling: {temperature: 0.8, seed: 7, max_tokens: 1500, repeat_penalty: 1.1}
limits: {timeout: 10m}
---
role: brief
description: Answers in a few words.
model: solo
prompt: You answer briefly.
sampling: {temperature: 0, max_tokens: 8}
---
role: judge
description: Judges.
model: talk
prompt: You judge.
output: {type: object, required: [verdict], additionalProperties: false, properties: {verdict: {enum: [ship, revise]}}}
sampling: {temperature: 0, max_tokens: 32}
---
graph: chain
description: One answers, another judges.
start: say
result: say
nodes:
  say: {role: short, next: check}
  check: {role: judge, next: done}
";
