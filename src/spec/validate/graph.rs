//! The order of stages: cycles are printed whole.

use super::Builder;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::yaml::Node;

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    No,
    /// On the way that is being followed.
    Open,
    Done,
}

impl Builder<'_> {
    /// Tells each cycle that a walk along inputs and `after` closes.
    pub(super) fn cycles(&mut self, stages: &[(Node, Node)]) {
        let mut before: Vec<Vec<(usize, Span)>> = vec![Vec::new(); stages.len()];
        for &(from, to, at) in &self.edges {
            before[to].push((from, at));
        }
        let mut seen = vec![Seen::No; stages.len()];
        for start in 0..stages.len() {
            if seen[start] != Seen::No {
                continue;
            }
            // The way so far, each with the number of its predecessors that have been followed.
            let mut way = vec![(start, 0)];
            seen[start] = Seen::Open;
            while let Some(&(stage, followed)) = way.last() {
                let Some(&(next, at)) = before[stage].get(followed) else {
                    seen[stage] = Seen::Done;
                    way.pop();
                    continue;
                };
                if let Some(last) = way.last_mut() {
                    last.1 += 1;
                }
                match seen[next] {
                    Seen::Done => {}
                    Seen::No => {
                        seen[next] = Seen::Open;
                        way.push((next, 0));
                    }
                    Seen::Open => {
                        let from = way.iter().position(|(s, _)| *s == next).unwrap_or(0);
                        let cycle: Vec<usize> = way[from..].iter().rev().map(|(s, _)| *s).collect();
                        self.cycle(stages, cycle, at);
                    }
                }
            }
        }
    }

    /// Tells a cycle from its first stage in the file on, each feeding the next.
    fn cycle(&mut self, stages: &[(Node, Node)], mut cycle: Vec<usize>, otherwise: Span) {
        let first = cycle.iter().enumerate().min_by_key(|(_, stage)| **stage).map_or(0, |(at, _)| at);
        cycle.rotate_left(first);
        let (from, to) = (cycle[cycle.len() - 1], cycle[0]);
        let at = self.edges.iter().find(|(f, t, _)| (*f, *t) == (from, to)).map_or(otherwise, |(_, _, at)| *at);
        let names: Vec<&str> = cycle.iter().chain([&to]).map(|s| stages[*s].0.key_text()).collect();
        let message = format!("these stages wait for each other: {}", names.join(" -> "));
        let help = match cycle.as_slice() {
            [_] => format!("`{}` cannot wait for itself", names[0]),
            _ => "none of them could ever start: cut the circle somewhere".into(),
        };
        self.mistakes.push(Diagnostic::new(at, message).help(help));
    }
}
