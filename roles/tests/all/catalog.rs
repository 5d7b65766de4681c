//! What a valid catalog holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artel_model::{ContextOverflow, KvCacheType, ReasoningParams};
use artel_roles::template::TemplateContext;
use artel_roles::{CacheSetting, Catalog, DefinitionKind, ModelPurpose, YamlSource, shipped};
use artel_task::NodeName;
use artel_task::condition::NodeOutputs;
use artel_task::event::TaskPriority;
use artel_task::graph::{NodeKind, ReplaySafety, RoleRef};
use serde_json::{Value, json};

fn over_shipped(text: &str) -> Catalog {
    let source = YamlSource { path: "own.yaml".to_owned(), dir: Some("/etc/crew".into()), text: text.to_owned() };
    match Catalog::parse(vec![shipped::sources(), vec![source]]) {
        Ok(catalog) => catalog,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn the_shipped_catalog_is_valid() {
    let catalog = match Catalog::parse(vec![shipped::sources()]) {
        Ok(catalog) => catalog,
        Err(problems) => panic!("{problems}"),
    };
    for role in ["transformers", "deepspeed", "lora", "gpu", "rag", "gguf"] {
        assert!(catalog.role(role).unwrap().examples.len() >= 8, "{role}");
    }
    assert!(catalog.role("critic").unwrap().output.is_some());
    assert!(["mentor", "council", "path"].iter().all(|graph| catalog.graph(graph).is_some()));
    assert_eq!(catalog.model("minilm").unwrap().purpose, ModelPurpose::Embedding);
    assert!(catalog.definitions().iter().all(|d| d.shipped));
}

#[test]
fn a_router_takes_every_role_with_examples_and_no_other() {
    let catalog = Catalog::shipped();
    let graph = catalog.graph("mentor").unwrap();
    let NodeKind::Router(router) = &graph.node(&NodeName::parse("pick").unwrap()).unwrap().kind else {
        panic!("no router")
    };
    let with_examples = catalog.roles().values().filter(|r| !r.examples.is_empty()).map(|r| r.name.clone());
    assert_eq!(router.roles, with_examples.collect::<Vec<_>>());
    assert!(!router.roles.iter().any(|r| r.as_str() == "critic"));
}

#[test]
fn a_role_has_what_its_yaml_says_and_defaults_for_the_rest() {
    let catalog = over_shipped(
        "role: writer\ndescription: Writes.\nmodel: smollm2\nadapter: {file: w.gguf, scale: 0.5}\nprompt: You write.\n\
         sampling: {temperature: 0, stop: [END, \"\\n\"]}\nlimits: {timeout: 5m}\noverflow: truncate\npriority: batch\n",
    );
    let role = catalog.role("writer").unwrap();
    let [adapter] = role.adapters.as_slice() else { panic!("{:?}", role.adapters) };
    assert_eq!(adapter.scale, 0.5);
    let places = [PathBuf::from("/etc/crew/w.gguf"), PathBuf::from("/models/w.gguf")];
    assert_eq!(adapter.candidates(Path::new("/models")), places);
    assert_eq!((role.sampling.choice.temperature, role.sampling.choice.params().top_k), (Some(0.0), 40));
    assert_eq!(role.sampling.stop, ["END", "\n"]);
    assert_eq!((role.limits.timeout, role.limits.retries), (Duration::from_secs(300), 2));
    assert_eq!((role.overflow, role.priority), (ContextOverflow::Truncate, TaskPriority::Batch));
    assert!(role.message.is_none() && role.output.is_none() && role.examples.is_empty());
}

#[test]
fn a_role_says_how_it_is_sampled_and_a_number_beyond_its_limit_is_refused() {
    let role = |sampling: &str| {
        let text =
            format!("role: writer\ndescription: Writes.\nmodel: smollm2\nprompt: You write.\nsampling: {sampling}\n");
        let source = YamlSource { path: "own.yaml".to_owned(), dir: None, text };
        Catalog::parse(vec![shipped::sources(), vec![source]])
    };
    let catalog = role(
        "{presence_penalty: -0.5, penalty_last_n: 0, dry: {multiplier: 0.8, breakers: []}, xtc: {probability: 0.5}, \
         logit_bias: {\" yes\": 2, no: -100}, logprobs: 3, fixed: true}",
    );
    let sampling = catalog.unwrap().role("writer").unwrap().sampling.clone();
    let params = sampling.choice.params();
    assert_eq!((params.presence_penalty, params.penalty_last_n, sampling.fixed), (-0.5, 0, true));
    assert_eq!(params.logit_bias, [(" yes".to_owned(), 2.0), ("no".to_owned(), -100.0)]);
    assert_eq!((sampling.choice.logprobs, params.xtc.unwrap().threshold), (Some(3), 0.1));
    assert!(params.dry.unwrap().breakers.is_empty());
    let refusals = [
        ("{presence_penalty: 3}", "`presence_penalty` is a number from -2 to 2, not 3"),
        ("{logit_bias: {yes: 101}}", "`yes` in `logit_bias` is a number from -100 to 100, not 101"),
        ("{dry: {base: 2}}", "`dry` has no `multiplier`"),
        ("{xtc: {probability: 1, threshold: 0.9}}", "`threshold` is a number from 0 to 0.5, not 0.9"),
        ("{logprobs: 21}", "`logprobs` is a whole number from 0 to 20, not 21"),
    ];
    for (sampling, message) in refusals {
        let problems = role(sampling).unwrap_err().to_string();
        assert!(problems.contains(message), "{message} in {problems}");
    }
}

#[test]
fn a_role_says_what_its_model_may_reason() {
    let catalog = over_shipped(
        "model: talk\nfile: talk.gguf\n---\n\
         role: writer\ndescription: Writes.\nmodel: talk\nprompt: P.\nreasoning: {show: true, enabled: false, budget: 0}\n---\n\
         role: thinker\ndescription: Thinks.\nmodel: talk\nprompt: P.\nreasoning: {enabled: auto, budget: 500}\n",
    );
    let of = |name: &str| catalog.role(name).unwrap().reasoning;
    assert_eq!(of("writer"), ReasoningParams { show: true, is_enabled: false, budget: Some(0) });
    assert_eq!(of("thinker"), ReasoningParams { show: false, is_enabled: true, budget: Some(500) });
    assert_eq!(of("critic"), ReasoningParams::default());
    for (reasoning, reason) in [
        ("{enabled: true}", "`enabled` is `auto` or `false`"),
        ("{show: maybe}", "`show` is `true` or `false`"),
        ("{budget: 1048577}", "`budget`"),
        ("{budget: -1}", "`budget`"),
        ("{effort: low}", "`effort`"),
        ("low", "`reasoning`"),
    ] {
        let role = "role: writer\ndescription: Writes.\nmodel: talk\nprompt: P.";
        let text = format!("model: talk\nfile: talk.gguf\n---\n{role}\nreasoning: {reasoning}\n");
        let source = YamlSource { path: "own.yaml".to_owned(), dir: Some("/etc/crew".into()), text };
        let problems = Catalog::parse(vec![shipped::sources(), vec![source]]).unwrap_err().to_string();
        assert!(problems.contains(reason), "{reasoning}: {problems}");
    }
}

#[test]
fn variables_of_a_chat_template_are_any_values_and_no_names_of_the_conversation() {
    let catalog = over_shipped(
        "model: talk\nfile: talk.gguf\ntemplate_kwargs: {enable_thinking: false, tags: [a, 1]}\n---\n\
         role: writer\ndescription: Writes.\nmodel: talk\nprompt: You write.\ntemplate_kwargs: {reasoning_effort: low}\n",
    );
    let model = &catalog.model("talk").unwrap().template_kwargs;
    assert_eq!(Value::Object((**model).clone()), json!({"enable_thinking": false, "tags": ["a", 1]}));
    let role = &catalog.role("writer").unwrap().template_kwargs;
    assert_eq!(Value::Object((**role).clone()), json!({"reasoning_effort": "low"}));
    assert!(catalog.role("critic").unwrap().template_kwargs.is_empty());
    let long = format!("{{x: {}}}", "y".repeat(5000));
    let many = format!("{{{}}}", (0..33).map(|at| format!("x{at}: 1")).collect::<Vec<_>>().join(", "));
    for (kwargs, reason) in [
        ("{messages: []}", "is what the conversation says itself"),
        ("{__bounded: 1}", "is no name"),
        ("{enable thinking: 1}", "is no name"),
        ("[enable_thinking]", "is a map of variables"),
        (&long, "more than 4096 bytes"),
        (&many, "has 33 variables, and at most 32"),
    ] {
        let text = format!("model: talk\nfile: talk.gguf\ntemplate_kwargs: {kwargs}\n");
        let source = YamlSource { path: "own.yaml".to_owned(), dir: Some("/etc/crew".into()), text };
        let problems = Catalog::parse(vec![shipped::sources(), vec![source]]).unwrap_err().to_string();
        assert!(problems.contains(reason), "{kwargs}: {problems}");
    }
}

#[test]
fn json_in_a_prompt_is_not_escaped_for_html() {
    let catalog = over_shipped(
        "role: writer\ndescription: Writes.\nmodel: smollm2\nprompt: |\n  {{ [\"<a> & 'b'\", 'ü'] | tojson }}\n\
         \x20 {{ {'b': 1.5, 'a': none} | tojson(indent=1, sort_keys=true) }}\n",
    );
    let prompt = &catalog.role("writer").unwrap().prompt;
    let expected = "[\"<a> & 'b'\", \"ü\"]\n{\n \"a\": null,\n \"b\": 1.5\n}";
    assert_eq!(prompt.render(&TemplateContext::default()).unwrap(), expected);
}

#[test]
fn a_definition_replaces_the_shipped_one_of_its_name() {
    let yaml = "# Mine.\nrole: critic\ndescription: Mine.\nmodel: smollm2\nprompt: You judge.\n";
    let catalog = over_shipped(&format!("{yaml}---\nmodel: phi\nfile: /gguf/phi.gguf\n"));
    assert_eq!(catalog.role("critic").unwrap().description, "Mine.");
    let definition = catalog.definition(DefinitionKind::Role, "critic").unwrap();
    assert_eq!((definition.line, definition.shipped, definition.file.as_str()), (2, false, "own.yaml"));
    assert_eq!(definition.text, yaml.strip_prefix("# Mine.\n").unwrap());
    assert_eq!(catalog.model("phi").unwrap().candidates(Path::new("/models")), [PathBuf::from("/gguf/phi.gguf")]);
    assert!(catalog.role("planner").is_some());
}

#[test]
fn a_definition_is_data_as_written() {
    let yaml = "role: writer\ndescription: &d Writes.\nexamples: [*d, \"7\"]\nmodel: smollm2\nprompt: |\n  You write.\n\
                sampling: {top_p: 0.5, max_tokens: 7}\n";
    let catalog = over_shipped(&format!("{yaml}---\nmodel: phi\nfile: phi.gguf\n"));
    let writer = catalog.definition(DefinitionKind::Role, "writer").unwrap();
    assert_eq!(writer.description.as_deref(), Some("Writes."));
    let written = json!({"role": "writer", "description": "Writes.", "examples": ["Writes.", "7"], "model": "smollm2",
        "prompt": "You write.\n", "sampling": {"top_p": 0.5, "max_tokens": 7}});
    assert_eq!(writer.content, written);
    assert_eq!(writer.content.as_object().unwrap().keys().collect::<Vec<_>>()[..2], ["role", "description"]);
    assert_eq!(catalog.definition(DefinitionKind::Model, "phi").unwrap().description, None);
    let json = serde_json::to_value(writer).unwrap();
    assert_eq!((&json["kind"], &json["uses"]), (&json!("role"), &json!([["model", "smollm2"]])));
    assert_eq!((&json["content"], &json["text"]), (&written, &json!(yaml)));
}

#[test]
fn a_definition_knows_what_it_uses() {
    let catalog = over_shipped(
        "router: own\nsignals: {keyword: {weight: 1.0}}\n---\n\
         graph: g\ndescription: D.\nstart: p\nnodes:\n  p:\n    router: {roles: [rag, lora], otherwise: planner, settings: own}\n    \
         next: a\n  \
         a: {role: {from: p}, next: b}\n  b: {role: critic, next: c}\n  c: {role: lora, next: done}\n\
         ---\ngraph: every\ndescription: D.\nstart: p\nnodes:\n  p: {router: {roles: all}, next: a}\n  \
         a: {role: {from: p}, next: done}\n",
    );
    let uses = |kind, name| catalog.definition(kind, name).unwrap().uses.clone();
    let roles = |names: &[&str]| names.iter().map(|n| (DefinitionKind::Role, (*n).to_owned())).collect::<Vec<_>>();
    assert_eq!(uses(DefinitionKind::Role, "critic"), [(DefinitionKind::Model, "smollm2".to_owned())]);
    assert_eq!(uses(DefinitionKind::Model, "smollm2"), []);
    let with = |mut uses: Vec<(DefinitionKind, String)>, router: &str| {
        uses.push((DefinitionKind::Router, router.to_owned()));
        uses.sort();
        uses
    };
    assert_eq!(uses(DefinitionKind::Graph, "g"), with(roles(&["critic", "lora", "planner", "rag"]), "own"));
    let with_examples = catalog.roles().values().filter(|r| !r.examples.is_empty()).map(|r| r.name.as_str());
    assert_eq!(uses(DefinitionKind::Graph, "every"), with(roles(&with_examples.collect::<Vec<_>>()), "default"));
}

#[test]
fn a_cache_whose_cells_a_role_moves_has_a_form_that_can_be_moved() {
    let model = |name: &str| format!("---\nmodel: {name}\ndescription: A model.\nfile: {name}.gguf\n");
    let role = |name: &str, model: &str, overflow: &str| {
        format!("---\nrole: {name}\ndescription: Tells.\nmodel: {model}\nprompt: P.\noverflow: {overflow}\n")
    };
    let yaml = [
        model("still"),
        model("moving"),
        role("one", "still", "truncate"),
        role("two", "moving", "shift"),
        role("three", "moving", "reject"),
    ];
    let catalog = over_shipped(&yaml.concat());
    let cache = |role: &str| catalog.model_of(catalog.role(role).unwrap()).unwrap().cache;
    let f16 = CacheSetting::Fixed(KvCacheType::F16);
    assert_eq!([cache("one"), cache("two"), cache("three")], [CacheSetting::Auto, f16, f16]);
}

#[test]
fn routers_compare_with_the_users_own_embedding_model_first() {
    let name = |catalog: &Catalog| catalog.embedding_model().unwrap().name.to_string();
    assert_eq!(name(&Catalog::shipped()), "minilm");
    let own = |model: &str| format!("model: {model}\nfile: x.gguf\nuse: embedding\n");
    assert_eq!(name(&over_shipped("model: a\nfile: x.gguf\n")), "minilm");
    assert_eq!(name(&over_shipped(&own("zulu"))), "zulu");
    assert_eq!(name(&over_shipped(&format!("{}---\n{}", own("zulu"), own("yankee")))), "yankee");
    let chat = YamlSource { path: "m.yaml".to_owned(), dir: None, text: "model: m\nfile: m.gguf\n".to_owned() };
    assert!(Catalog::parse(vec![vec![chat]]).unwrap().embedding_model().is_none());
}

#[test]
fn a_node_message_is_compiled_and_forgives_nodes_that_have_not_run() {
    let catalog = Catalog::shipped();
    let message = catalog.message("mentor", "answer").unwrap();
    let outputs = |nodes: &[(&str, Value)]| -> Arc<NodeOutputs> {
        let output = |(name, json): &(&str, Value)| (NodeName::parse(name).unwrap(), Arc::new(json.clone()));
        Arc::new(nodes.iter().map(output).collect())
    };
    let task = Arc::new(json!({"id": "1", "input": "Why?", "graph": "mentor"}));
    let first = TemplateContext { task, input: "Why?".to_owned(), ..TemplateContext::default() };
    assert_eq!(message.render(&first).unwrap(), "Why?");
    let nodes = outputs(&[
        ("answer", json!({"text": "So.", "output": null, "role": "gguf"})),
        ("check", json!({"text": "{}", "output": {"verdict": "revise", "reason": "Too short."}, "role": "critic"})),
    ]);
    let text = message.render(&TemplateContext { nodes, ..first }).unwrap();
    assert!(text.contains("So.") && text.contains("Too short."), "{text}");
    assert!(catalog.message("mentor", "pick").is_none());
}

#[test]
fn a_schema_says_what_does_not_fit() {
    let catalog = Catalog::shipped();
    let schema = catalog.role("critic").unwrap().output.clone().unwrap();
    assert_eq!(schema.check(&json!({"verdict": "ship", "reason": "Fine."})), Ok(()));
    let error = schema.check(&json!({"verdict": "maybe", "reason": "Fine."})).unwrap_err().to_string();
    assert!(error.starts_with("at /verdict: "), "{error}");
    assert!(schema.check(&json!({"verdict": "ship"})).unwrap_err().to_string().contains("reason"));
}

#[test]
fn a_graph_takes_edges_in_all_forms() {
    let catalog = over_shipped(
        "graph: g\ndescription: D.\nstart: a\nnodes:\n  a: {role: gguf, next: [b, {to: c}]}\n  b: {role: lora, next: c}\n  \
         c: {role: {from: p}, join: {quorum: 2}, next: {to: done}}\n  p: {router: {roles: [gguf]}, next: a}\nlimits: {time: 1h}\n"
            .replace("start: a", "start: p").as_str(),
    );
    let graph = catalog.graph("g").unwrap();
    assert_eq!(graph.limits().time, Duration::from_secs(3600));
    let node = graph.node(&NodeName::parse("c").unwrap()).unwrap();
    let from = RoleRef::From(NodeName::parse("p").unwrap());
    assert_eq!(node.kind, NodeKind::Role { role: from, message: None });
    assert_eq!(node.next[0].to, None);
}

#[test]
fn a_catalog_can_be_stored_and_restored() {
    let catalog = over_shipped("role: writer\ndescription: Writes.\nmodel: smollm2\nprompt: You write.\n");
    let restored = Catalog::restore(&catalog.sources().to_json(), None).unwrap();
    assert_eq!(restored.version(), catalog.version());
    assert_eq!(restored.role("writer"), catalog.role("writer"));
    assert!(Catalog::restore("nonsense", None).is_err());
}

#[test]
fn the_version_follows_the_content() {
    let role = "role: writer\ndescription: Writes.\nmodel: smollm2\nprompt: You write.\n";
    let (first, second) = (over_shipped(role), over_shipped(&role.replace("Writes", "Reads")));
    assert_ne!(first.version(), second.version());
    assert_ne!(first.version(), Catalog::shipped().version());
    assert_eq!(first.version(), over_shipped(&role.replace('\n', "\r\n")).version());
    assert_eq!(first.version().as_str().len(), 64);
}

#[test]
fn directories_are_read_in_order_and_hidden_files_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let role = |name: &str| format!("\u{feff}role: {name}\ndescription: D.\nmodel: smollm2\nprompt: P.\n");
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/one.yml"), role("one")).unwrap();
    fs::write(dir.path().join("two.yaml"), role("two")).unwrap();
    fs::write(dir.path().join(".hidden.yaml"), "not: right").unwrap();
    fs::write(dir.path().join("readme.txt"), "not right").unwrap();
    fs::write(dir.path().join("off.yaml"), "# role: off\n").unwrap();
    let catalog = Catalog::load(Some(dir.path())).unwrap();
    assert!(catalog.role("one").is_some() && catalog.role("two").is_some() && catalog.role("hidden").is_none());
    let own: Vec<&str> = catalog.sources().layers[1].iter().filter_map(|s| s.path.rsplit('/').next()).collect();
    assert_eq!(own, ["off.yaml", "one.yml", "two.yaml"]);
}

#[test]
fn a_graph_has_questions_lists_retries_and_timeouts() {
    let catalog = over_shipped(
        "graph: outer\ndescription: D.\nstart: a\nreduce: {notes: append}\nfallback: Sorry.\nnodes:\n  \
         a:\n    graph: inner\n    for_each: {list: '[1, 2]', parallel: 3, at_most: 7}\n    message: 'x{{ item }}'\n    \
         write: notes\n    timeout: 5m\n    retries: {count: 4, delay: 1s}\n    on_failure: b\n    next: b\n  \
         b: {role: gguf, join: any, effect: at_most_once, idle: 5s, next: c}\n  \
         c: {role: lora, cache: true, retries: 0, next: d}\n  \
         d:\n    ask: {message: 'Ok?', output: {enum: ['yes', 'no']}, deadline: 2h, otherwise: 'no'}\n    next: done\n\
         ---\ngraph: inner\ndescription: D.\nstart: x\nnodes:\n  x: {ask: 'Why?', next: done}\n",
    );
    let graph = catalog.graph("outer").unwrap();
    let node = |name: &str| graph.node(&NodeName::parse(name).unwrap()).unwrap();
    let a = node("a");
    let each = a.for_each.as_ref().unwrap();
    assert_eq!((each.list.source(), each.parallel, each.max_items), ("[1, 2]", 3, 7));
    assert!(matches!(&a.kind, NodeKind::Graph { graph, .. } if graph.name().as_str() == "inner"));
    let retries = a.policy.retries.unwrap();
    assert_eq!((retries.count, retries.delay, retries.max_delay), (4, Duration::from_secs(1), Duration::from_secs(30)));
    assert_eq!(a.on_failure.as_ref().and_then(|edge| edge.to.clone()), NodeName::parse("b").ok());
    assert_eq!(
        (node("b").replay_safety, node("b").policy.idle_timeout),
        (ReplaySafety::AtMostOnce, Some(Duration::from_secs(5)))
    );
    assert!(node("c").cache && node("c").policy.retries.is_some_and(|retries| retries.count == 0));
    let NodeKind::Ask(asked) = &node("d").kind else { panic!("{:?}", node("d")) };
    assert_eq!((asked.deadline, asked.otherwise.clone()), (Some(Duration::from_secs(7200)), Some(json!("no"))));
    assert_eq!(catalog.answer_schema("outer", "d").unwrap().check(&json!("yes")), Ok(()));
    assert!(catalog.answer_schema("inner", "x").is_none() && catalog.message("inner", "x").is_some());
    assert_eq!((graph.fallback(), graph.values().len(), graph.depth()), (Some("Sorry."), 1, 1));
    let uses = catalog.definition(DefinitionKind::Graph, "outer").unwrap().uses.clone();
    let named = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(
        uses,
        [
            named(DefinitionKind::Role, "gguf"),
            named(DefinitionKind::Role, "lora"),
            named(DefinitionKind::Graph, "inner")
        ]
    );
}

#[test]
fn a_router_node_has_a_number_of_roles_and_its_signals() {
    let graph = |router: &str, second: &str| {
        format!(
            "graph: two\ndescription: x\nstart: pick\nnodes:\n  pick: {{router: {{roles: [gpu, rag, lora], {router}}}, next: \
             [a, b]}}\n  a: {{role: {{from: pick}}, next: done}}\n  b: {{role: {{from: pick, rank: {second}}}, next: done}}\n"
        )
    };
    let parse = |text: String| {
        let source = YamlSource { path: "g.yaml".to_owned(), dir: None, text };
        Catalog::parse(vec![shipped::sources(), vec![source]]).map_err(|problems| problems.to_string())
    };
    assert!(parse(graph("best: 2, signals: [keyword, rule], settings: default", "2")).is_ok());
    for (router, rank, complaint) in [
        ("best: 2", "3", "takes the role of rank 3 from `pick`, which chooses 2"),
        ("best: 4", "2", "`best` is a whole number from 1 to 3"),
        ("signals: [smell]", "1", "`smell`"),
        ("settings: defualt", "1", "did you mean `default`"),
    ] {
        let problems = parse(graph(router, rank)).unwrap_err();
        assert!(problems.contains(complaint), "{complaint} in {problems}");
    }
}

#[test]
fn a_rule_that_reads_an_unknown_name_is_refused_on_load() {
    let role = |when: &str| {
        let text = format!("role: r\ndescription: x\nmodel: smollm2\nprompt: x\nwhen: '{when}'\n");
        let source = YamlSource { path: "r.yaml".to_owned(), dir: None, text };
        Catalog::parse(vec![shipped::sources(), vec![source]]).map_err(|problems| problems.to_string())
    };
    let catalog = role("task.input.matches(\"(?i)gpu\")").unwrap();
    let when = catalog.role("r").unwrap().when.clone().unwrap();
    assert_eq!(artel_router::rule_matches(&when, "My GPU"), Ok(true));
    assert_eq!(artel_router::rule_matches(&when, "My dog"), Ok(false));
    for bad in ["task.inptu == \"x\"", "input == \"x\"", "size(task.input)", "task.input.matches("] {
        assert!(role(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_hf_uri_names_a_file_on_hugging_face() {
    let yaml = "model: phi\nfile: hf:org/phi@v2/q4/phi.gguf\n---\nrole: writer\ndescription: Writes.\nmodel: phi\n\
                adapter: hf:org/lora/w.gguf\nprompt: You write.\n";
    let catalog = over_shipped(yaml);
    let model = catalog.model("phi").unwrap();
    assert_eq!(model.file.uri().unwrap().to_string(), "hf:org/phi@v2/q4/phi.gguf");
    assert_eq!(model.candidates(Path::new("/models")), [PathBuf::from("/models/hf/org/phi/v2/q4/phi.gguf")]);
    let adapter = &catalog.role("writer").unwrap().adapters[0];
    assert_eq!(adapter.candidates(Path::new("/models")), [PathBuf::from("/models/hf/org/lora/main/w.gguf")]);
}

#[test]
fn any_piece_names_a_model_in_pieces_and_each_piece_has_a_hash() {
    let hashes = ["a", "B", "c"].map(|digit| digit.repeat(64));
    let yaml = |file: &str, hashes: &str| format!("model: big\nfile: {file}\nsha256: {hashes}\n");
    let list = format!("[{}]", hashes.join(", "));
    let catalog = over_shipped(&yaml("dir/big-00003-of-00003.gguf", &list));
    let model = catalog.model("big").unwrap();
    assert_eq!(model.candidates(Path::new("/models"))[0], PathBuf::from("/etc/crew/dir/big-00001-of-00003.gguf"));
    assert_eq!(model.sha256.as_ref().unwrap().get(1), Some(&*"b".repeat(64)));
    let hub = over_shipped(&yaml("hf:org/big/q8/big-00002-of-00003.gguf", &list));
    let address = hub.model("big").unwrap().file.uri().unwrap().to_string();
    assert_eq!(address, "hf:org/big/q8/big-00001-of-00003.gguf");
    let single = over_shipped(&yaml("m.gguf", &format!("[{}]", hashes[0])));
    assert_eq!(single.model("big").unwrap().sha256.as_ref().unwrap().count(), 1);

    let refused = |text: String| {
        let source = YamlSource { path: "own.yaml".to_owned(), dir: None, text };
        Catalog::parse(vec![shipped::sources(), vec![source]]).unwrap_err().to_string()
    };
    let one = refused(yaml("big-00001-of-00003.gguf", &hashes[0]));
    assert!(one.contains("own.yaml:3:9: the model has 3 files and `sha256` has 1 hashes"), "{one}");
    assert!(refused(yaml("m.gguf", &list)).contains("the model has 1 files and `sha256` has 3 hashes"));
    assert!(refused(yaml("m.gguf", "[]")).contains("the model has 1 files and `sha256` has 0 hashes"));
    let number = refused(yaml("big-00004-of-00003.gguf", &list));
    assert!(number.contains("own.yaml:2:7: there is no piece 4 of 3; name the first piece"), "{number}");
    let role = "role: r\ndescription: D.\nmodel: smollm2\nprompt: P.\nadapter: lora-00001-of-00002.gguf\n";
    let adapter = refused(role.to_owned());
    assert!(adapter.contains("own.yaml:5:10: `adapter` is one file") && adapter.contains("merge"), "{adapter}");
}
