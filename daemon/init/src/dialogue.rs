//! Questions to a person, line by line.

use std::io::{self, BufRead, Write};

/// The most lines that are read for one question: a person has given up by then, or the input is no person's.
const MAX_ATTEMPTS: usize = 20;

/// Asks on one stream and reads from another. An empty line takes the proposal.
#[derive(Debug)]
pub struct Dialogue<R, W> {
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    /// Asks on `output` and reads answers from `input`.
    pub fn new(input: R, output: W) -> Self {
        Self { input, output }
    }

    /// Asks for a text; an empty line means `proposal`.
    ///
    /// # Errors
    /// The input ended, or the question cannot be written.
    pub fn text(&mut self, question: &str, proposal: &str) -> io::Result<String> {
        let answer = self.line(&format!("{question} [{proposal}] "))?;
        Ok(if answer.is_empty() { proposal.to_owned() } else { answer })
    }

    /// Asks for one of several words until one is given; an empty line means `proposal`.
    ///
    /// # Errors
    /// As for [`Dialogue::text`]; or no word is one of them for too many lines.
    pub fn choice(&mut self, question: &str, words: &[&str], proposal: &str) -> io::Result<String> {
        for _ in 0..MAX_ATTEMPTS {
            let answer = self.text(question, proposal)?;
            if words.contains(&answer.as_str()) {
                return Ok(answer);
            }
            writeln!(self.output, "`{}` is none of {}", answer.escape_debug(), words.join(", "))?;
        }
        Err(no_answer())
    }

    /// Asks for yes or no; an empty line means yes.
    ///
    /// # Errors
    /// As for [`Dialogue::choice`].
    pub fn confirm(&mut self, question: &str) -> io::Result<bool> {
        for _ in 0..MAX_ATTEMPTS {
            match self.line(&format!("{question} [Y/n] "))?.to_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => writeln!(self.output, "answer `y` or `n`")?,
            }
        }
        Err(no_answer())
    }

    fn line(&mut self, prompt: &str) -> io::Result<String> {
        self.output.write_all(prompt.as_bytes())?;
        self.output.flush()?;
        let mut line = String::new();
        match self.input.read_line(&mut line)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the input ended before the answer")),
            _ => Ok(line.trim().to_owned()),
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("no answer within {MAX_ATTEMPTS} lines"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<T>(
        input: &str,
        ask: impl FnOnce(&mut Dialogue<&[u8], &mut Vec<u8>>) -> io::Result<T>,
    ) -> (io::Result<T>, String) {
        let mut output = Vec::new();
        let result = ask(&mut Dialogue::new(input.as_bytes(), &mut output));
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn an_empty_line_takes_the_proposal() {
        let (answer, shown) = asked("\n", |d| d.text("Where?", "here"));
        assert_eq!((answer.unwrap(), shown), ("here".to_owned(), "Where? [here] ".to_owned()));
        assert_eq!(asked(" there \n", |d| d.text("Where?", "here")).0.unwrap(), "there");
        assert!(asked("\n", |d| d.confirm("Now?")).0.unwrap());
        assert!(!asked("N\n", |d| d.confirm("Now?")).0.unwrap());
    }

    #[test]
    fn another_word_is_asked_again() {
        let (answer, shown) = asked("big\nsmall\n", |d| d.choice("Which?", &["small", "tiny"], "tiny"));
        assert_eq!(answer.unwrap(), "small");
        assert_eq!(shown, "Which? [tiny] `big` is none of small, tiny\nWhich? [tiny] ");
    }

    #[test]
    fn the_end_of_the_input_ends_the_dialogue() {
        assert!(asked("", |d| d.text("Where?", "here")).0.is_err());
        assert!(asked("maybe\n", |d| d.confirm("Now?")).0.is_err());
        assert!(asked(&"x\n".repeat(100), |d| d.choice("Which?", &["a"], "a")).0.is_err());
    }
}
