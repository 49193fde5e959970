//! Questions to devices that may never answer.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Answers on their way.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    answers: Receiver<T>,
    wanted: usize,
    end: Instant,
}

impl<T: Send + 'static> Asked<T> {
    /// Asks each question on a thread of its own. A device that hangs takes only its own thread with it:
    /// nothing waits for that.
    pub(crate) fn all<F: FnOnce() -> T + Send + 'static>(
        questions: impl IntoIterator<Item = F>,
        patience: Duration,
    ) -> Self {
        let (give, answers) = channel();
        let mut wanted = 0;
        for question in questions {
            let give = give.clone();
            let asker = std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
                // Whoever wanted it may have given up.
                let _ = give.send(question());
            });
            wanted += usize::from(asker.is_ok());
        }
        Self { answers, wanted, end: Instant::now() + patience }
    }

    /// The answers that come in time.
    pub(crate) fn answers(self) -> Vec<T> {
        let mut got = Vec::new();
        while got.len() < self.wanted {
            match self.answers.recv_timeout(self.end.saturating_duration_since(Instant::now())) {
                Ok(answer) => got.push(answer),
                Err(_) => break,
            }
        }
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_heard() {
        let questions: Vec<Box<dyn FnOnce() -> u8 + Send>> = vec![Box::new(|| 2), Box::new(|| 3)];
        let mut answers = Asked::all(questions, Duration::from_secs(600)).answers();
        answers.sort_unstable();
        assert_eq!(answers, [2, 3]);
        assert!(Asked::<u8>::all(Vec::<fn() -> u8>::new(), Duration::from_secs(600)).answers().is_empty());
    }

    #[test]
    fn who_hangs_is_left_behind() {
        let (hold, held) = channel::<()>();
        let (done, finished) = channel();
        let hangs = move || {
            let _ = held.recv();
            let _ = done.send(());
        };
        assert!(Asked::all([hangs], Duration::ZERO).answers().is_empty());
        drop(hold);
        assert!(finished.recv().is_ok(), "it goes on by itself, and its answer goes nowhere");
    }
}
