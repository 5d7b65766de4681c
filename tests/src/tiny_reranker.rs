//! A small cross-encoder of random weights: as a GGUF file, and as a reference that computes with 64 bits.

/// Numbers of a token's vector.
const STATE_DIMENSIONS: usize = 32;
const HEADS: usize = 2;
const LAYERS: usize = 2;
/// Numbers of the inner vector of a feed-forward part.
const INNER_DIMENSIONS: usize = 64;
/// Tokens that the model takes: the query and a document together.
pub const RERANKER_CONTEXT_TOKENS: usize = 64;
const NORM_PRECISION: f64 = 1e-12;

const UNKNOWN_ID: usize = 1;
const BEGIN_ID: usize = 2;
const SEPARATOR_ID: usize = 3;
const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// The words that it knows; each is a token.
pub const RERANKER_WORDS: [&str; 16] = [
    "a", "boat", "cat", "dog", "fish", "hill", "how", "lamp", "mill", "moon", "rain", "river", "sail", "the", "tree",
    "wind",
];

/// The model.
pub struct TinyReranker {
    /// In the order of the file: name, length of a row, rows (0 for a vector), numbers.
    tensors: Vec<(String, usize, usize, Vec<f32>)>,
}

/// Pseudorandom numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    /// From -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn vector(&mut self, length: usize, scale: f32) -> Vec<f32> {
        (0..length).map(|_| self.next() * scale).collect()
    }
}

impl TinyReranker {
    /// A model of random weights, by their seed, with a head that makes scores.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut tensors = Vec::new();
        let vocabulary = SPECIAL_TOKENS.len() + RERANKER_WORDS.len();
        let mut add = |name: String, row: usize, rows: usize, scale: f32, offset: f32| {
            let values = numbers.vector(row * rows.max(1), scale).into_iter().map(|value| value + offset).collect();
            tensors.push((name, row, rows, values));
        };
        let mut linear = |name: &str, from: usize, to: usize, scale: f32| {
            add(format!("{name}.weight"), from, to, scale * (3.0 / from as f32).sqrt(), 0.0);
            add(format!("{name}.bias"), to, 0, 0.1, 0.0);
        };
        for layer in 0..LAYERS {
            let part = |name: &str| format!("blk.{layer}.{name}");
            for name in ["attn_q", "attn_k"] {
                linear(&part(name), STATE_DIMENSIONS, STATE_DIMENSIONS, 2.0);
            }
            for name in ["attn_v", "attn_output"] {
                linear(&part(name), STATE_DIMENSIONS, STATE_DIMENSIONS, 1.0);
            }
            linear(&part("ffn_up"), STATE_DIMENSIONS, INNER_DIMENSIONS, 1.0);
            linear(&part("ffn_down"), INNER_DIMENSIONS, STATE_DIMENSIONS, 1.0);
        }
        linear("cls", STATE_DIMENSIONS, STATE_DIMENSIONS, 1.0);
        linear("cls.output", STATE_DIMENSIONS, 1, 4.0);
        add("token_embd.weight".to_owned(), STATE_DIMENSIONS, vocabulary, 1.0, 0.0);
        add("token_types.weight".to_owned(), STATE_DIMENSIONS, 2, 0.2, 0.0);
        add("position_embd.weight".to_owned(), STATE_DIMENSIONS, RERANKER_CONTEXT_TOKENS, 0.2, 0.0);
        let norms = (0..LAYERS)
            .flat_map(|layer| ["attn_output_norm", "layer_output_norm"].map(|name| format!("blk.{layer}.{name}")));
        for name in norms.chain(["token_embd_norm".to_owned()]) {
            add(format!("{name}.weight"), STATE_DIMENSIONS, 0, 0.2, 1.0);
            add(format!("{name}.bias"), STATE_DIMENSIONS, 0, 0.1, 0.0);
        }
        Self { tensors }
    }

    /// The same without its head.
    pub fn without_head(mut self) -> Self {
        self.tensors.retain(|(name, ..)| !name.starts_with("cls"));
        self
    }

    fn tensor(&self, name: &str) -> &[f32] {
        let found = self.tensors.iter().find(|(known, ..)| known == name);
        &found.unwrap_or_else(|| panic!("no tensor {name}")).3
    }

    /// The tokens of a query with a document: `[CLS] query [SEP] document [SEP]`.
    fn tokens(query: &str, document: &str) -> Vec<usize> {
        let id = |word: &str| {
            let known = RERANKER_WORDS.iter().position(|known| *known == word);
            known.map_or(UNKNOWN_ID, |at| SPECIAL_TOKENS.len() + at)
        };
        let mut tokens = vec![BEGIN_ID];
        for text in [query, document] {
            tokens.extend(text.split_whitespace().map(id));
            tokens.push(SEPARATOR_ID);
        }
        tokens
    }

    /// How many tokens a query has with a document.
    pub fn token_count(query: &str, document: &str) -> usize {
        Self::tokens(query, document).len()
    }

    /// The score of a document, as the reference computes it. Words are separated by spaces.
    pub fn score(&self, query: &str, document: &str) -> f64 {
        let tokens = Self::tokens(query, document);
        let row = |name: &str, at: usize| {
            self.tensor(name)[at * STATE_DIMENSIONS..(at + 1) * STATE_DIMENSIONS]
                .iter()
                .map(|x| f64::from(*x))
                .collect::<Vec<_>>()
        };
        let embedded = tokens.iter().enumerate().map(|(position, token)| {
            let (token, position) = (row("token_embd.weight", *token), row("position_embd.weight", position));
            sum(&sum(&token, &position), &row("token_types.weight", 0))
        });
        let mut states: Vec<Vec<f64>> = embedded.map(|x| self.norm("token_embd_norm", &x)).collect();
        for layer in 0..LAYERS {
            let part = |name: &str| format!("blk.{layer}.{name}");
            let attended = self.attention(layer, &states);
            let inner = attended.iter().zip(&states).map(|(a, x)| self.norm(&part("attn_output_norm"), &sum(a, x)));
            states = inner
                .map(|x| {
                    let up: Vec<f64> = self.linear(&part("ffn_up"), &x).into_iter().map(gelu).collect();
                    self.norm(&part("layer_output_norm"), &sum(&self.linear(&part("ffn_down"), &up), &x))
                })
                .collect();
        }
        let pooled: Vec<f64> = self.linear("cls", &states[0]).into_iter().map(f64::tanh).collect();
        self.linear("cls.output", &pooled)[0]
    }

    fn attention(&self, layer: usize, states: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let all = |name: &str| -> Vec<Vec<f64>> {
            states.iter().map(|x| self.linear(&format!("blk.{layer}.{name}"), x)).collect()
        };
        let (queries, keys, values) = (all("attn_q"), all("attn_k"), all("attn_v"));
        let head_width = STATE_DIMENSIONS / HEADS;
        let attend = |query: &Vec<f64>| {
            let mut out = Vec::new();
            for head in 0..HEADS {
                let of = head * head_width..(head + 1) * head_width;
                let logits = keys.iter().map(|key| {
                    let product: f64 = query[of.clone()].iter().zip(&key[of.clone()]).map(|(q, k)| q * k).sum();
                    product / (head_width as f64).sqrt()
                });
                let weights: Vec<f64> = logits.map(f64::exp).collect();
                let total: f64 = weights.iter().sum();
                out.extend(of.map(|at| weights.iter().zip(&values).map(|(w, v)| w / total * v[at]).sum::<f64>()));
            }
            self.linear(&format!("blk.{layer}.attn_output"), &out)
        };
        queries.iter().map(attend).collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensor(&format!("{name}.weight")).chunks(x.len());
        let product = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        let bias = self.tensor(&format!("{name}.bias"));
        rows.zip(bias).map(|(row, bias)| product(row) + f64::from(*bias)).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
        let (weight, bias) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        let scaled = |(x, (weight, bias)): (&f64, (&f32, &f32))| {
            (x - mean) / (variance + NORM_PRECISION).sqrt() * f64::from(*weight) + f64::from(*bias)
        };
        x.iter().zip(weight.iter().zip(bias)).map(scaled).collect()
    }

    /// The GGUF file, with this pooling of llama.cpp; 4 ranks.
    pub fn gguf(&self, pooling: u32) -> Vec<u8> {
        self.file(pooling, &[])
    }

    /// The GGUF file of a model that ranks, with a template for a query and a document.
    pub fn gguf_with_template(&self, template: &str) -> Vec<u8> {
        self.file(4, &entry("tokenizer.chat_template.rerank", 8, &text(template)))
    }

    /// `more` is one more entry of the metadata, or none.
    fn file(&self, pooling: u32, more: &[u8]) -> Vec<u8> {
        let words = RERANKER_WORDS.iter().map(|word| format!("\u{2581}{word}"));
        let words: Vec<String> = SPECIAL_TOKENS.iter().map(|token| (*token).to_owned()).chain(words).collect();
        // 3 is a control token, 1 a normal one.
        let kinds: Vec<i32> = (0..words.len()).map(|at| if at < SPECIAL_TOKENS.len() { 3 } else { 1 }).collect();
        let number = |key: &str, value: usize| entry(key, 4, &(value as u32).to_le_bytes());
        let entries = [
            entry("general.architecture", 8, &text("bert")),
            number("bert.block_count", LAYERS),
            number("bert.context_length", RERANKER_CONTEXT_TOKENS),
            number("bert.embedding_length", STATE_DIMENSIONS),
            number("bert.feed_forward_length", INNER_DIMENSIONS),
            number("bert.attention.head_count", HEADS),
            entry("bert.attention.layer_norm_epsilon", 6, &(NORM_PRECISION as f32).to_le_bytes()),
            entry("bert.attention.causal", 7, &[0]),
            number("bert.pooling_type", pooling as usize),
            entry("tokenizer.ggml.model", 8, &text("bert")),
            number("tokenizer.ggml.token_type_count", 2),
            entry("tokenizer.ggml.tokens", 9, &array(8, words.iter().map(|word| text(word)))),
            entry("tokenizer.ggml.token_type", 9, &array(5, kinds.iter().map(|kind| kind.to_le_bytes().to_vec()))),
            number("tokenizer.ggml.padding_token_id", 0),
            number("tokenizer.ggml.unknown_token_id", UNKNOWN_ID),
            number("tokenizer.ggml.bos_token_id", BEGIN_ID),
            number("tokenizer.ggml.eos_token_id", SEPARATOR_ID),
            number("tokenizer.ggml.seperator_token_id", SEPARATOR_ID),
            number("tokenizer.ggml.mask_token_id", 4),
            // One separator between both, and one at the end.
            entry("tokenizer.ggml.add_eos_token", 7, &[1]),
            entry("tokenizer.ggml.add_sep_token", 7, &[0]),
        ];
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((entries.len() as u64 + u64::from(!more.is_empty())).to_le_bytes());
        bytes.extend(entries.concat());
        bytes.extend(more);
        let mut offset = 0;
        for (name, row, rows, values) in &self.tensors {
            let dimensions: Vec<u64> = [*row, *rows].iter().filter(|n| **n > 0).map(|n| *n as u64).collect();
            bytes.extend(text(name));
            bytes.extend((dimensions.len() as u32).to_le_bytes());
            bytes.extend(dimensions.iter().flat_map(|n| n.to_le_bytes()));
            // The type 0 is F32.
            bytes.extend(0u32.to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            offset += (values.len() * 4).next_multiple_of(ALIGNMENT_BYTES);
        }
        for (.., values) in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        bytes
    }
}

/// Where tensors begin in a GGUF file.
const ALIGNMENT_BYTES: usize = 32;

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// As in llama.cpp: by its approximation with the hyperbolic tangent.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An entry of the metadata; `kind` is the number of the value's type.
fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, items: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let head = [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
    items.fold(head, |bytes, item| [bytes, item].concat())
}
