//! A template as a tree.

use std::collections::BTreeMap;

use super::Place;
use super::value::Value;

/// A whole template: what it prints, and what it defines by name.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) body: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Debug)]
pub(super) enum Node {
    Outside(String, Place),
    Print(Pipe),
    /// `if` and `else if`, in order, then `else`.
    If {
        arms: Vec<(Pipe, Vec<Self>)>,
        otherwise: Vec<Self>,
    },
    /// As `if`, and the value becomes the dot.
    With {
        arms: Vec<(Pipe, Vec<Self>)>,
        otherwise: Vec<Self>,
    },
    Range {
        pipe: Pipe,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
    /// `template "name" pipe`
    Call {
        name: String,
        pipe: Option<Pipe>,
        place: Place,
    },
    Break(Place),
    Continue(Place),
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) place: Place,
    /// `$a :=` or `$i, $a :=`; with `=`, an older variable is changed.
    pub(super) variables: Vec<String>,
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A function with its arguments, or one operand.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

/// A value and the fields that are taken of it.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) place: Place,
    pub(super) root: Root,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Root {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Group(Box<Pipe>),
}
