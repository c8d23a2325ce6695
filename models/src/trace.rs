//! Traces: the steps of a run as lines of text, for people to read and for regression tests to replay. A line is one
//! action's text; a remark may follow after two spaces and `#`.

use super::world::{Action, System, World};

/// Returns `actions`, performed from `start`, as lines of text, each with the event that it delivers. Actions that
/// only supply a random draw are left out.
pub fn print<S: System>(cfg: &S::Cfg, start: &World<S>, actions: &[Action<S::Move>]) -> String {
    let mut world = start.clone();
    let mut text = String::new();
    for (i, action) in actions.iter().enumerate() {
        let asks_more = actions.get(i + 1).is_some_and(|n| n.act == action.act && n.draws.len() > action.draws.len());
        if !asks_more {
            let carries = match &action.act {
                super::world::Act::Deliver(lane, _) => world.under_way().find(|(l, _)| l == lane),
                super::world::Act::Fire(_) | super::world::Act::Move(_) => None,
            };
            text += &match carries {
                Some((_, event)) => format!("{action}  # {event:?}\n"),
                None => format!("{action}\n"),
            };
        }
        world = world.next(cfg, action);
    }
    text
}

/// Replays a printed trace; returns every world on the way, including the start. `Err` names an impossible line.
pub fn replay<S: System>(cfg: &S::Cfg, start: World<S>, text: &str) -> Result<Vec<World<S>>, String> {
    let mut worlds = std::vec![start];
    for line in text.lines().map(|l| l.split("  #").next().unwrap_or(l).trim()).filter(|l| !l.is_empty()) {
        let here = worlds.last().expect("the start is there");
        let next = follow(cfg, here, line).ok_or_else(|| format!("not possible here: {line}"))?;
        worlds.push(next);
    }
    Ok(worlds)
}

/// Performs the action whose text is `line`, with all random draws that it needs; `None` if it is impossible in this
/// world.
fn follow<S: System>(cfg: &S::Cfg, world: &World<S>, line: &str) -> Option<World<S>> {
    let base = line.split(" drawing ").next().unwrap_or(line);
    let mut here = world.clone();
    let mut wanted = base;
    loop {
        let mut actions = Vec::new();
        here.actions(cfg, &mut actions);
        let leads_there = |text: &str| text == line || line.starts_with(&format!("{},", text.trim_end_matches(']')));
        let action = actions.iter().find(|a| {
            let text = a.to_string();
            if wanted == base { text == base } else { leads_there(&text) }
        })?;
        here = here.next(cfg, action);
        if action.to_string() == line {
            return Some(here);
        }
        wanted = line;
    }
}
