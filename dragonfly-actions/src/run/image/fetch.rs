//! Fetches an image and goes on where a broken connection stopped.

use std::time::Duration;

use bytes::Bytes;
use dragonfly_core::action::{ActionContext, ActionError, ImageError, ImageStream};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use url::Url;

/// What the decoder is told.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// The transfer has begun; so long is the image, if that is known.
    Begin(Option<u64>),
    /// The next bytes.
    Bytes(Bytes),
    /// That was all of it.
    End,
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Failures in a row without a single byte in between.
    pub(crate) fruitless: u32,
    /// Failures in all.
    pub(crate) failures: u32,
    /// First pause; doubles.
    pub(crate) first: Duration,
    /// Longest pause.
    pub(crate) longest: Duration,
    /// How long a connection may be silent.
    pub(crate) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // About two minutes of nothing: a server that is being restarted comes back in that time.
        Self {
            fruitless: 12,
            failures: 200,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(15),
            silence: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause before try `tries` (from 1). `random` spreads it between half and one and a half of
    /// its length, so that a hundred machines do not come back at once.
    fn pause(&self, tries: u32, random: u16) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(tries.saturating_sub(1).min(20)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.longest);
        pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u16::MAX))
    }
}

/// Where a transfer stands.
struct Transfer<'a> {
    cx: &'a ActionContext,
    url: &'a Url,
    to: mpsc::Sender<Fetched>,
    /// Bytes that were passed on.
    done: u64,
    begun: bool,
    total: Option<u64>,
    validator: Option<String>,
    /// The source cannot begin in the middle: it is read from the start and what is known is skipped.
    from_start: bool,
    judged: bool,
}

/// How one connection ended.
enum Ended {
    Complete,
    /// Nobody wants the rest: the decoder has stopped and says why itself.
    Unwanted,
}

/// Fetches all of it. `judged`: a digest judges the bytes, so that a source that cannot prove that
/// its content is still the same may be resumed.
pub(crate) async fn fetch(
    cx: &ActionContext,
    url: &Url,
    to: mpsc::Sender<Fetched>,
    patience: Patience,
    judged: bool,
) -> Result<(), ActionError> {
    let mut transfer =
        Transfer { cx, url, to, done: 0, begun: false, total: None, validator: None, from_start: false, judged };
    let (mut fruitless, mut failures) = (0u32, 0u32);
    loop {
        let before = transfer.done;
        let error = match transfer.connect(patience.silence).await {
            Ok(Ended::Complete) => {
                // If nobody hears it, the decoder has failed and says why.
                let _ = transfer.to.send(Fetched::End).await;
                return Ok(());
            }
            Ok(Ended::Unwanted) => return Ok(()),
            Err(Stop::For(error)) => return Err(error),
            // It broke behind the last byte: there is nothing left to ask for.
            Err(Stop::Again(error)) if error.is_retryable() && transfer.is_whole() => {
                let _ = transfer.to.send(Fetched::End).await;
                return Ok(());
            }
            Err(Stop::Again(ImageError::NoRange { .. })) if !transfer.from_start && transfer.done > 0 => {
                transfer.from_start = true;
                cx.log("the server cannot resume: reading from the start again");
                continue;
            }
            Err(Stop::Again(error)) if error.is_retryable() => error,
            Err(Stop::Again(error)) => {
                return Err(ActionError::failed(advice(&error), error));
            }
        };
        failures += 1;
        fruitless = if transfer.done > before { 1 } else { fruitless + 1 };
        if fruitless >= patience.fruitless || failures >= patience.failures {
            let what = format!(
                "the image could not be fetched: {failures} tries, {} bytes of {} arrived; check the server and the network, then retry",
                transfer.done,
                transfer.total.map_or_else(|| "an unknown length".to_owned(), |t| t.to_string()),
            );
            return Err(ActionError::failed(what, error));
        }
        let pause = patience.pause(fruitless, random());
        cx.log(format!(
            "the transfer broke at byte {} ({}); trying again in {:.1} s",
            transfer.done,
            root_cause(&error),
            pause.as_secs_f64()
        ));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cx.cancelled() => return Err(ActionError::Cancelled),
        }
    }
}

enum Stop {
    /// The step fails.
    For(ActionError),
    /// The connection failed.
    Again(ImageError),
}

impl Transfer<'_> {
    /// Whether every byte of a known length has come.
    fn is_whole(&self) -> bool {
        self.begun && self.total == Some(self.done)
    }

    /// Where the next connection begins.
    fn offset(&self) -> u64 {
        match self.total {
            _ if self.from_start => 0,
            Some(_) => self.done,
            // All of it may be here, and a range behind the end is refused as if the image had been
            // replaced. One byte again, and the answer tells the length.
            None => self.done.saturating_sub(1),
        }
    }

    /// One connection, to its end.
    async fn connect(&mut self, silence: Duration) -> Result<Ended, Stop> {
        let offset = self.offset();
        let open = self.cx.images().open(self.url, offset, self.validator.as_deref());
        let ImageStream { mut bytes, total, validator } = tokio::select! {
            opened = tokio::time::timeout(silence, open) => match opened {
                Ok(opened) => opened.map_err(Stop::Again)?,
                Err(_) => return Err(Stop::Again(self.io("no answer within the time limit"))),
            },
            () = self.cx.cancelled() => return Err(Stop::For(ActionError::Cancelled)),
        };
        self.greet(total, validator).await?;
        let mut skip = self.done - offset;
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(silence, bytes.next()) => next,
                () = self.cx.cancelled() => return Err(Stop::For(ActionError::Cancelled)),
            };
            let mut chunk = match next {
                Err(_) => return Err(Stop::Again(self.io("the connection fell silent"))),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(Stop::Again(error)),
                Ok(None) => break,
            };
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            let chunk = chunk.split_off(known as usize);
            if chunk.is_empty() {
                continue;
            }
            let after = self.done + chunk.len() as u64;
            if self.total.is_some_and(|total| after > total) {
                return Err(Stop::For(ActionError::because("the server sends more than the length it announced")));
            }
            if self.to.send(Fetched::Bytes(chunk)).await.is_err() {
                return Ok(Ended::Unwanted);
            }
            self.done = after;
        }
        match self.total {
            Some(total) if self.done < total => Err(Stop::Again(self.io("the connection ended early"))),
            // Without a length nothing tells an end from a break; what was read again may be shorter.
            None if skip > 0 => Err(Stop::Again(ImageError::Changed { url: super::bare(self.url) })),
            _ => Ok(Ended::Complete),
        }
    }

    /// What a connection says of the image, against what the first one said.
    async fn greet(&mut self, total: Option<u64>, validator: Option<String>) -> Result<(), Stop> {
        if !self.begun {
            self.begun = true;
            (self.total, self.validator) = (total, validator);
            // If nobody hears it, neither will the bytes be heard.
            let _ = self.to.send(Fetched::Begin(total)).await;
            return Ok(());
        }
        let same = match (&self.validator, &validator) {
            (Some(first), Some(now)) => first == now,
            // Without proof only the digest can tell.
            _ => self.judged || self.done == 0,
        };
        let same_length = match (self.total, total) {
            (Some(first), Some(now)) => first == now,
            (None, Some(now)) => now >= self.done,
            (_, None) => true,
        };
        if same && same_length {
            // The first answer need not have told it.
            self.total = self.total.or(total);
            return Ok(());
        }
        Err(Stop::Again(ImageError::Changed { url: super::bare(self.url) }))
    }

    fn io(&self, what: &str) -> ImageError {
        ImageError::Io { url: super::bare(self.url), source: what.to_owned().into() }
    }
}

/// What a person can do about an error that trying again does not mend.
fn advice(error: &ImageError) -> &'static str {
    match error {
        ImageError::NotFound { .. } => "there is no such image; check the template's `url`",
        ImageError::Refused { .. } => "the server refuses to give the image; check who may read it",
        ImageError::Changed { .. } => "the image was replaced while it was fetched; retry when it is settled",
        ImageError::Untimely { .. } => {
            "the image cannot be fetched; set the clock of whichever is wrong, or renew the image server's certificate"
        }
        _ => "the image cannot be fetched",
    }
}

fn root_cause(error: &ImageError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn random() -> u16 {
    uuid::Uuid::new_v4().as_u128() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use dragonfly_core::action::{Canceller, ImageSource, Permit};
    use dragonfly_core::testing::RecordingSink;
    use futures_util::stream;

    const CONTENT: &[u8] = b"0123456789";

    /// Sends everything and then breaks, once; tells its length at once or only in a range.
    #[derive(Debug)]
    struct BreaksBehind {
        tells: bool,
        asked: Mutex<Vec<u64>>,
    }

    #[async_trait::async_trait]
    impl ImageSource for BreaksBehind {
        async fn open(&self, url: &Url, offset: u64, _: Option<&str>) -> Result<ImageStream, ImageError> {
            let first = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(offset);
                asked.len() == 1
            };
            // As a server answers 416.
            let rest = CONTENT.get(offset as usize..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or_else(|| ImageError::Changed { url: url.to_string() })?;
            let broken = first.then(|| Err(ImageError::Io { url: url.to_string(), source: "reset".into() }));
            let bytes = stream::iter([Ok(Bytes::from_static(rest))].into_iter().chain(broken)).boxed();
            let total = (self.tells || !first).then_some(CONTENT.len() as u64);
            Ok(ImageStream { bytes, total, validator: Some("\"one\"".to_owned()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_behind_the_last_byte_is_an_end() {
        for (tells, want) in [(true, vec![0]), (false, vec![0, 9])] {
            let source = Arc::new(BreaksBehind { tells, asked: Mutex::default() });
            let sink = Arc::new(RecordingSink::default());
            let cx = ActionContext::new(&Canceller::default(), sink, source.clone(), Permit::default());
            let (to, mut from) = mpsc::channel(16);
            let url = "http://nowhere.test/i".parse().unwrap();
            fetch(&cx, &url, to, Patience::default(), false).await.unwrap_or_else(|e| panic!("told {tells}: {e}"));
            let (mut got, mut ended) = (Vec::new(), false);
            while let Some(fetched) = from.recv().await {
                match fetched {
                    Fetched::Begin(total) => assert_eq!(total.is_some(), tells),
                    Fetched::Bytes(bytes) => got.extend(bytes),
                    Fetched::End => ended = true,
                }
            }
            assert!(got == CONTENT && ended, "told {tells}: {got:?}");
            assert_eq!(*source.asked.lock().unwrap(), want, "told {tells}");
        }
    }

    #[test]
    fn pauses_grow_and_are_spread() {
        let patience = Patience::default();
        let table = [(1, 0, 125), (1, u16::MAX, 375), (2, 0, 250), (4, 0, 1000), (12, 0, 7500), (40, u16::MAX, 22500)];
        for (tries, random, millis) in table {
            assert_eq!(patience.pause(tries, random).as_millis(), millis, "try {tries}");
        }
    }
}
