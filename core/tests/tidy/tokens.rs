//! Source text as words: enough of Rust's grammar for the rules on imports, lengths and parameters.

/// One word of source text: an identifier, `::`, `->`, `=>`, or one other character.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// Returns the words of `text` without comments, strings, characters and lifetimes.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(first) = text[at..].chars().next() {
        let len = skipped(&text[at..]);
        if len == 0 {
            let len = word(&text[at..], first);
            found.push(Token { text: &text[at..at + len], line });
            at += len;
        } else {
            line += text[at..at + len].matches('\n').count();
            at += len;
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(rest: &str, first: char) -> usize {
    if is_word(first) {
        return rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    }
    let is_pair = ["::", "->", "=>"].iter().any(|pair| rest.starts_with(pair));
    if is_pair { 2 } else { first.len_utf8() }
}

/// Returns the length of what is no word at the beginning of `rest`: white space, a comment, a literal or a lifetime.
fn skipped(rest: &str) -> usize {
    let until = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    let space = rest.len() - rest.trim_start().len();
    if space > 0 {
        return space;
    }
    if rest.starts_with("//") {
        return until("\n", 0);
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    let raw = rest.trim_start_matches('b').trim_start_matches('r');
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let prefix = rest.len() - raw.len();
    if prefix > 0 && prefix <= 2 && rest[..prefix].ends_with('r') && raw[hashes..].starts_with('"') {
        return until(&format!("\"{}", "#".repeat(hashes)), prefix + hashes + 1);
    }
    let body = rest.strip_prefix('b').unwrap_or(rest);
    if body.starts_with('"') {
        return rest.len() - body.len() + literal(body, '"');
    }
    if body.starts_with('\'') {
        let mut chars = body.chars().skip(1);
        let is_char = chars.next() == Some('\\') || chars.next() == Some('\'');
        let name = || 1 + body[1..].find(|c| !is_word(c)).unwrap_or(body.len() - 1);
        return rest.len() - body.len() + if is_char { literal(body, '\'') } else { name() };
    }
    0
}

/// Returns the length of a literal that begins and ends with `quote`.
fn literal(body: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    body.len()
}

/// Returns the index of the bracket that closes the one at `start`.
pub(crate) fn closing(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Returns `tokens` without the items that only tests compile.
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].iter().map(|t| t.text).take(mark.len()).eq(mark) {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        at += mark.len();
        while at < tokens.len() && !matches!(tokens[at].text, ";" | "{") {
            at = if matches!(tokens[at].text, "(" | "[") { closing(tokens, at) } else { at } + 1;
        }
        at = if tokens.get(at).is_some_and(|t| t.text == "{") { closing(tokens, at) } else { at } + 1;
    }
    kept
}

/// A function as it is written: its name, its lines and its parameters without `self`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
    pub(crate) parameters: usize,
}

/// Returns the functions of a source file.
pub(crate) fn functions(tokens: &[Token]) -> Vec<Function> {
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "fn") {
        let Some(name) = tokens.get(at + 1).filter(|t| t.text.starts_with(is_word)) else { continue };
        let Some(open) = arguments(tokens, at + 2) else { continue };
        let close = closing(tokens, open);
        let mut body = close;
        while body < tokens.len() && !matches!(tokens[body].text, ";" | "{" | "}") {
            body = if tokens[body].text == "[" { closing(tokens, body) } else { body } + 1;
        }
        let is_bodied = tokens.get(body).is_some_and(|t| t.text == "{");
        let end = if is_bodied { closing(tokens, body) } else { close };
        let (line, name) = (tokens[at].line, name.text.to_string());
        let lines = tokens[end].line - line + 1;
        found.push(Function { name, line, lines, parameters: parameters(&tokens[open + 1..close]) });
    }
    found
}

/// Returns the index at which a function's parameters begin, behind its generics.
fn arguments(tokens: &[Token], start: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "<" => depth += 1,
            ">" => depth -= 1,
            "(" if depth == 0 => return Some(at),
            ";" | "{" => return None,
            _ => {}
        }
    }
    None
}

fn parameters(tokens: &[Token]) -> usize {
    let (mut depth, mut count, mut begins) = (0, 0, true);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            ")" | "]" | "}" | ">" => depth -= 1,
            _ => {}
        }
        if begins && !matches!(token.text, "#" | "&" | "mut" | ",") && depth == 0 {
            let next = tokens.get(at + 1).map_or(",", |t| t.text);
            count += usize::from(token.text != "self" || !matches!(next, "," | ":"));
            begins = false;
        }
        if token.text == "," && depth == 0 {
            begins = true;
        }
    }
    count
}
