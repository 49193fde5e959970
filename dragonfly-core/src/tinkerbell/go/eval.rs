//! Walks a tree and writes what it prints.

use super::ast::{Command, Node, Operand, Pipe, Root, Template};
use super::functions::{self, Budget};
use super::value::{Value, late};
use super::{GoError, MAX_DEPTH, MAX_TEXT, Place};

/// What a template becomes with these data.
pub(super) fn run(template: &Template, data: &Value) -> Result<String, GoError> {
    let mut walk = Walk {
        template,
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        budget: Budget::new(),
        depth: 0,
    };
    walk.nodes(&template.body, data)?;
    Ok(walk.out)
}

struct Walk<'a> {
    template: &'a Template,
    out: String,
    /// The first is `$`.
    variables: Vec<(String, Value)>,
    budget: Budget,
    depth: usize,
}

/// Whether a loop goes on behind some nodes.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break(Place),
    Continue(Place),
}

impl<'a> Walk<'a> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<(), GoError> {
        match self.list(nodes, dot)? {
            Flow::On => Ok(()),
            Flow::Break(place) | Flow::Continue(place) => Err(place.error("this stands in no `range`")),
        }
    }

    /// Nodes with variables of their own.
    fn list(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, GoError> {
        let before = self.variables.len();
        self.depth += 1;
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.depth -= 1;
        self.variables.truncate(before);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, GoError> {
        match node {
            Node::Outside(text, place) => self.write(text, *place)?,
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    let text = functions::shown(&value, &mut self.budget).map_err(|said| pipe.place.error(said))?;
                    self.write(&text, pipe.place)?;
                }
            }
            Node::If { arms, otherwise } | Node::With { arms, otherwise } => {
                let before = self.variables.len();
                let mut chosen = (otherwise, None);
                for (pipe, body) in arms {
                    let value = self.pipe(pipe, dot)?;
                    if value.is_true().map_err(|said| pipe.place.error(said))? {
                        chosen = (body, matches!(node, Node::With { .. }).then_some(value));
                        break;
                    }
                }
                let (body, inner) = chosen;
                let flow = self.list(body, inner.as_ref().unwrap_or(dot))?;
                self.variables.truncate(before);
                return Ok(flow);
            }
            Node::Range { pipe, body, otherwise } => return self.range(pipe, body, otherwise, dot),
            Node::Call { name, pipe, place } => {
                let Some(body) = self.template.defined.get(name) else {
                    return Err(place.error(format!("no template `{name}` is defined")));
                };
                let value = match pipe {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Value::Nil,
                };
                if self.depth > MAX_DEPTH {
                    return Err(place.error(format!("templates call each other deeper than {MAX_DEPTH}")));
                }
                self.spend(1, *place)?;
                let outer = std::mem::replace(&mut self.variables, vec![(String::new(), value.clone())]);
                let done = self.nodes(body, &value);
                self.variables = outer;
                done?;
            }
            Node::Break(place) => return Ok(Flow::Break(*place)),
            Node::Continue(place) => return Ok(Flow::Continue(*place)),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, pipe: &'a Pipe, body: &'a [Node], otherwise: &'a [Node], dot: &Value) -> Result<Flow, GoError> {
        let value = self.pipe_alone(pipe, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Nil => Vec::new(),
            Value::List(list) => (0i64..).map(Value::Int).zip(list.items.iter().cloned()).collect(),
            Value::Map(map) => map.entries.iter().map(|(k, v)| (Value::text(k.as_str()), v.clone())).collect(),
            Value::Int(n) if *n <= super::MAX_LIST as i64 => (0..*n).map(|i| (Value::Int(i), Value::Int(i))).collect(),
            Value::Late(name) => return Err(pipe.place.error(late(name))),
            other => {
                return Err(pipe.place.error(format!("`range` goes through a list or a map, not {}", other.kind())));
            }
        };
        if items.is_empty() {
            return self.list(otherwise, dot);
        }
        let before = self.variables.len();
        for (key, item) in items {
            self.spend(1, pipe.place)?;
            match &pipe.variables[..] {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.list(body, &item)?;
            self.variables.truncate(before);
            if matches!(flow, Flow::Break(_)) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn spend(&mut self, steps: usize, place: Place) -> Result<(), GoError> {
        self.budget.spend(steps).map_err(|said| place.error(said))
    }

    fn write(&mut self, text: &str, place: Place) -> Result<(), GoError> {
        self.spend(1 + text.len() / 1024, place)?;
        if self.out.len() + text.len() > MAX_TEXT {
            return Err(place.error(format!("the template becomes longer than {MAX_TEXT} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// A pipeline's value; its variable is set.
    fn pipe(&mut self, pipe: &'a Pipe, dot: &Value) -> Result<Value, GoError> {
        let value = self.pipe_alone(pipe, dot)?;
        if let Some(name) = pipe.variables.first() {
            if pipe.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                let Some((_, known)) = found else {
                    return Err(pipe.place.error(format!("`${name}` is not declared")));
                };
                *known = value.clone();
            }
        }
        Ok(value)
    }

    fn pipe_alone(&mut self, pipe: &'a Pipe, dot: &Value) -> Result<Value, GoError> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &'a Command, last: Option<Value>, dot: &Value) -> Result<Value, GoError> {
        let Some((first, arguments)) = command.operands.split_first() else { return Ok(Value::Nil) };
        self.spend(1, first.place)?;
        let Root::Function(name) = &first.root else {
            if !arguments.is_empty() || last.is_some() {
                return Err(first.place.error("this is no function, and something is given to it"));
            }
            return self.operand(first, dot);
        };
        if !first.fields.is_empty() {
            return Err(first.place.error(format!("`{name}` is a function: write `({name} ...)` before a field")));
        }
        self.call(name, first.place, arguments, last, dot)
    }

    fn call(
        &mut self,
        name: &str,
        place: Place,
        arguments: &'a [Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, GoError> {
        // What decides is enough: the rest is not looked at.
        if matches!(name, "and" | "or") {
            let mut value = None;
            for operand in arguments {
                let one = self.operand(operand, dot)?;
                let is_true = one.is_true().map_err(|said| operand.place.error(said))?;
                value = Some(one);
                if is_true == (name == "or") {
                    return Ok(value.unwrap_or(Value::Nil));
                }
            }
            return last.or(value).ok_or_else(|| place.error(format!("`{name}` needs an argument")));
        }
        let Some(function) = functions::find(name) else {
            let near = crate::near::did_you_mean(name, functions::names());
            let near = near.map(|question| format!("; {question}")).unwrap_or_default();
            return Err(place.error(format!("there is no function `{name}` here{near}")));
        };
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for operand in arguments {
            values.push(self.operand(operand, dot)?);
        }
        values.extend(last);
        // `default` is for what is not there, and no function computes with what is not known.
        if let Some(Value::Late(unknown)) = values.iter().find(|value| matches!(value, Value::Late(_))) {
            return Err(place.error(late(unknown)));
        }
        function(&mut self.budget, &values).map_err(|said| place.error(format!("{name}: {said}")))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value, GoError> {
        let mut value = match &operand.root {
            Root::Dot => dot.clone(),
            Root::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = found else {
                    return Err(operand.place.error(format!("`${name}` is not declared")));
                };
                value.clone()
            }
            Root::Function(name) => self.call(name, operand.place, &[], None, dot)?,
            Root::Literal(value) => value.clone(),
            Root::Group(pipe) => self.pipe_alone(pipe, dot)?,
        };
        for field in &operand.fields {
            value = value.field(field).map_err(|said| operand.place.error(said))?;
        }
        Ok(value)
    }
}
