//! What is told of a field that is not carried over as it stands.

use std::fmt;

/// What became of a field or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is done here without being told.
    NotNeeded,
    /// It is carried over, and means something slightly different.
    Changed,
    /// It is not carried over; what it belongs to is.
    Lost,
    /// What it belongs to is not made because of it.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotNeeded => "not needed",
            Self::Changed => "changed",
            Self::Lost => "lost",
            Self::Refused => "refused",
        })
    }
}

/// One field or object that is not carried over as it stands. It never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: String,
    /// The document in it, from 1.
    pub document: usize,
    /// The line in the file, from 1; of `spec.data` for what stands in a template.
    pub line: usize,
    /// `Hardware "sm01"`; empty when it could not be told.
    pub object: String,
    /// Where in the object: `spec.interfaces[0].netboot.ipxe.contents`.
    pub path: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, and what to do.
    pub said: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}, line {}: ", self.file, self.document, self.line)?;
        for part in [&self.object, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        write!(f, "{}: {}", self.outcome, self.said)
    }
}
