//! The graph of stages: the only room that knows petgraph. Items never become nodes.

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use crate::spec::model::{Input, Stage};

/// Stages and what flows or waits between them.
#[derive(Debug, Clone)]
pub struct Graph {
    stages: DiGraph<usize, ()>,
    order: Vec<usize>,
}

impl Graph {
    /// The graph of validated stages.
    ///
    /// # Panics
    /// On a cycle: validation has refused it.
    pub fn new(stages: &[Stage]) -> Graph {
        let mut graph = DiGraph::with_capacity(stages.len(), stages.len());
        for index in 0..stages.len() {
            graph.add_node(index);
        }
        for (index, stage) in stages.iter().enumerate() {
            let inputs = stage.inputs.iter().filter_map(|input| match input {
                Input::Stage(upstream) => Some(*upstream),
                Input::Source(_) => None,
            });
            for upstream in inputs.chain(stage.after.iter().copied()) {
                graph.update_edge(NodeIndex::new(upstream), NodeIndex::new(index), ());
            }
        }
        let order = toposort(&graph, None).expect("validation refuses cycles");
        Graph { order: order.into_iter().map(|node| graph[node]).collect(), stages: graph }
    }

    /// All stages, each after what it needs.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Marks a stage and all that it needs.
    pub fn with_ancestors(&self, stage: usize) -> Vec<bool> {
        let mut marked = vec![false; self.stages.node_count()];
        let reversed = Reversed(&self.stages);
        let mut search = Dfs::new(reversed, NodeIndex::new(stage));
        while let Some(node) = search.next(reversed) {
            marked[self.stages[node]] = true;
        }
        marked
    }
}
