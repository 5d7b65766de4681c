//! Made chunks, each the same whenever it is asked for.

use artel_knowledge::DocumentChunk;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const DIMENSIONS: usize = 384;

/// The words of the language, and those of a chunk: about 200 tokens.
const VOCABULARY_WORDS: usize = 120_000;
const CHUNK_WORDS: usize = 110;
const QUESTION_WORDS: usize = 9;

/// Topics, around whose directions vectors lie.
const TOPIC_VALUES: usize = 400;

const QUESTION_SEED_FACTOR: u64 = 1_000_003;

pub(crate) struct Corpus {
    chunks: usize,
    /// The sums of the frequencies of words, the most frequent first.
    frequencies: Vec<f64>,
    words: Vec<String>,
    topics: Vec<Vec<f32>>,
}

impl Corpus {
    pub(crate) fn new(chunks: usize) -> Self {
        let mut sum = 0.0;
        let frequencies = (0..VOCABULARY_WORDS).map(|rank| {
            sum += (rank as f64 + 2.7).powf(-1.05);
            sum
        });
        let mut random = SmallRng::seed_from_u64(1);
        Self {
            chunks,
            frequencies: frequencies.collect(),
            words: (0..VOCABULARY_WORDS).map(|rank| word(rank, &mut random)).collect(),
            topics: (0..TOPIC_VALUES).map(|_| direction(&mut random)).collect(),
        }
    }

    pub(crate) fn chunks(&self) -> usize {
        self.chunks
    }

    pub(crate) fn chunk(&self, number: usize) -> DocumentChunk {
        let mut random = SmallRng::seed_from_u64(number as u64);
        let words: Vec<&str> = (0..CHUNK_WORDS).map(|_| self.random_word(&mut random)).collect();
        let text = words.join(" ");
        let bytes = 0..text.len() as u64;
        let line = u32::try_from(number).unwrap();
        DocumentChunk { text, context: Vec::new(), header: None, bytes, lines: line..=line, page: None }
    }

    /// The number of a chunk, which it keeps as its line.
    pub(crate) fn number(&self, chunk: &DocumentChunk) -> usize {
        *chunk.lines.start() as usize
    }

    /// A unit vector near its topic's direction.
    pub(crate) fn vector(&self, number: usize) -> Vec<f32> {
        let mut random = SmallRng::seed_from_u64(number as u64 ^ 0x5eed);
        let topic = &self.topics[random.random_range(0..self.topics.len())];
        near(topic, 0.8, &mut random)
    }

    /// Words of a chunk, as frequent as they are in it: a question has rare words and those that all questions have.
    pub(crate) fn question(&self, question: usize) -> String {
        let mut random = SmallRng::seed_from_u64(question as u64 * QUESTION_SEED_FACTOR);
        let chunk = self.chunk(random.random_range(0..self.chunks));
        let words: Vec<&str> = chunk.text.split(' ').collect();
        let words: Vec<&str> = (0..QUESTION_WORDS).map(|_| words[random.random_range(0..words.len())]).collect();
        words.join(" ")
    }

    pub(crate) fn question_vector(&self, question: usize) -> Vec<f32> {
        let mut random = SmallRng::seed_from_u64(question as u64 * QUESTION_SEED_FACTOR + 1);
        let chunk = self.vector(random.random_range(0..self.chunks));
        near(&chunk, 0.6, &mut random)
    }

    fn random_word(&self, random: &mut SmallRng) -> &str {
        let sum = self.frequencies.last().unwrap();
        let at = random.random_range(0.0..*sum);
        &self.words[self.frequencies.partition_point(|frequency| *frequency <= at)]
    }
}

/// Frequent words are short.
fn word(rank: usize, random: &mut SmallRng) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "za", "ble", "tro",
        "sing", "er",
    ];
    let syllables = 1 + (rank + 2).ilog10() as usize;
    let word: String = (0..syllables).map(|_| SYLLABLES[random.random_range(0..SYLLABLES.len())]).collect();
    // Different words stay different.
    format!("{word}{}", letters(rank))
}

fn letters(mut number: usize) -> String {
    let mut text = String::new();
    while number > 0 {
        text.push(char::from(b'a' + u8::try_from(number % 26).unwrap()));
        number /= 26;
    }
    text
}

fn direction(random: &mut SmallRng) -> Vec<f32> {
    // The sum of four even values is near enough to a normal one.
    let value = |random: &mut SmallRng| (0..4).map(|_| random.random_range(-1.0_f32..1.0)).sum::<f32>();
    let values: Vec<f32> = (0..DIMENSIONS).map(|_| value(random)).collect();
    unit(values)
}

fn near(center: &[f32], spread: f32, random: &mut SmallRng) -> Vec<f32> {
    let noise = direction(random);
    unit(center.iter().zip(noise).map(|(center, noise)| center + spread * noise).collect())
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    values
}
