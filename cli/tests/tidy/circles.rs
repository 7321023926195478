//! Circles of files within a crate: what lies below must not name what stands on it.
//!
//! A file names another one where a path in it, after `use` or in place, leads to something that is defined there, through
//! whoever hands it on. A module and what lies below it in the tree of modules are one thing: the child may name what its
//! parent defines, and the parent what its children do. So **a circle is allowed if one of its files holds all the others
//! of it**, and no other one is: of its files none could be read, changed or tested without the rest. To declare a child,
//! or to hand on what is its (`pub use`), is to name nothing. Tests do not count.
//!
//! Reads text and knows no types: whoever calls a method of what he was given names nothing by that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{folders, manifest, sources, top};

/// Names of modules from the crate's root on, which has none.
type Module<'a> = Vec<&'a str>;

/// How often a name may be handed on; whatever goes on for longer is another crate's.
const HANDED_ON_MAX: u32 = 16;

/// What begins an item that ends with a block or `;`. All else ends with a comma, too.
const ITEMS: [&str; 15] = [
    "async", "const", "enum", "extern", "fn", "impl", "let", "mod", "pub", "static", "struct",
    "trait", "type", "unsafe", "use",
];

/// The words and signs of a source, without comments and literals.
fn tokens(mut text: &str) -> Vec<&str> {
    let is_word = |sign: char| sign.is_alphanumeric() || sign == '_';
    let mut tokens = Vec::new();
    while let Some(sign) = text.chars().next() {
        let passed = passed_over(text);
        let len = match sign {
            _ if passed > 0 => passed,
            _ if is_word(sign) => text.find(|sign| !is_word(sign)).unwrap_or(text.len()),
            _ if text.starts_with("::") => 2,
            _ => sign.len_utf8(),
        };
        if passed == 0 && !sign.is_whitespace() {
            tokens.push(&text[..len]);
        }
        text = &text[len..];
    }
    tokens
}

/// The length of the comment or literal that a text begins with.
fn passed_over(text: &str) -> usize {
    let until = |end: &str| text.find(end).map_or(text.len(), |found| found + end.len());
    if text.starts_with("//") {
        return until("\n");
    }
    if text.starts_with("/*") {
        return until("*/");
    }
    let raw = text.strip_prefix('b').unwrap_or(text).strip_prefix('r');
    let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    if raw.is_some_and(|raw| raw[hashes..].starts_with('"')) {
        let begin = text.find('"').expect("it is there") + 1;
        let end = format!("\"{}", "#".repeat(hashes));
        let len = text[begin..].find(&end).expect("a literal ends");
        return begin + len + end.len();
    }
    let quote = match text.as_bytes() {
        [b'"', ..] => '"',
        [b'\'', b'\\', ..] => '\'',
        // A lifetime has no second one.
        [b'\'', ..] if text.chars().nth(2) == Some('\'') => '\'',
        _ => return 0,
    };
    let mut escapes = false;
    let ends = |sign: char| {
        let ends = sign == quote && !escapes;
        escapes = sign == '\\' && !escapes;
        ends
    };
    text[1..].find(ends).expect("a literal ends") + 2
}

/// What is not for tests only; and of what is public not for whom.
fn shipped<'a>(all: &[&'a str]) -> Vec<&'a str> {
    let for_tests = ["#[cfg(test)]", "#[cfg(all(test,"].map(tokens);
    let mut shipped = Vec::new();
    let mut rest = all;
    while let Some((token, after)) = rest.split_first() {
        if for_tests.iter().any(|signs| rest.starts_with(signs)) {
            rest = &rest[end_of_item(rest)..];
            continue;
        }
        shipped.push(*token);
        rest = match rest {
            ["pub", "(", "crate" | "super" | "self" | "in", ..] => {
                let end = after.iter().position(|token| *token == ")");
                &after[end.expect("a parenthesis ends") + 1..]
            }
            _ => after,
        };
    }
    shipped
}

/// The number of tokens of the item, or whatever it is, that some begin with, its attributes included.
fn end_of_item(tokens: &[&str]) -> usize {
    let mut depth = 0_u32;
    let mut begins = None;
    for (place, token) in tokens.iter().enumerate() {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return place,
            ")" | "]" | "}" => {
                depth -= 1;
                if depth == 0 && *token == "}" {
                    return place + 1;
                }
            }
            ";" if depth == 0 => return place + 1,
            "," if depth == 0 && begins.is_none_or(|begin| !ITEMS.contains(&begin)) => {
                return place + 1;
            }
            "#" => {}
            word if depth == 0 => begins = begins.or(Some(word)),
            _ => {}
        }
    }
    tokens.len()
}

/// Below `src/`.
fn file_of(module: &[&str]) -> String {
    match module {
        [] => "lib.rs".to_owned(),
        _ => format!("{}.rs", module.join("/")),
    }
}

/// What one `use` brings.
struct Use<'a> {
    path: Vec<&'a str>,
    /// As what it is known in the file.
    name: &'a str,
    is_public: bool,
}

#[derive(Default)]
struct File<'a> {
    children: BTreeSet<&'a str>,
    uses: Vec<Use<'a>>,
    /// Paths in place.
    paths: Vec<Vec<&'a str>>,
    /// All words outside of `use`.
    words: BTreeSet<&'a str>,
}

impl<'a> File<'a> {
    fn read(tokens: &[&'a str], is_child: impl Fn(&str) -> bool) -> File<'a> {
        let mut file = File::default();
        let mut place = 0;
        while place < tokens.len() {
            match &tokens[place..] {
                ["mod", name, ";", ..] if is_child(name) => {
                    file.children.insert(*name);
                    place += 3;
                }
                ["use", after, ..] if *after != "<" => {
                    let is_public = place > 0 && tokens[place - 1] == "pub";
                    place += 1;
                    file.bring(tokens, &mut place, &[], is_public);
                }
                [word, ..] => {
                    let begin = place;
                    while let ["::", next, ..] = &tokens[place + 1..]
                        && next.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
                    {
                        place += 2;
                    }
                    let path: Vec<&str> =
                        tokens[begin..=place].iter().copied().step_by(2).collect();
                    if path.len() > 1 && *word != "::" {
                        file.paths.push(path.clone());
                    }
                    file.words.extend(path);
                    place += 1;
                }
                [] => unreachable!("the loop ends before"),
            }
        }
        file
    }

    /// Reads one branch of a `use`.
    fn bring(&mut self, tokens: &[&'a str], place: &mut usize, trunk: &[&'a str], is_public: bool) {
        let mut path = trunk.to_vec();
        loop {
            let token = tokens[*place];
            *place += 1;
            match token {
                "{" => {
                    while tokens[*place] != "}" {
                        self.bring(tokens, place, &path, is_public);
                        *place += usize::from(tokens[*place] == ",");
                    }
                    *place += 1;
                    return;
                }
                "::" => continue,
                "self" if !path.is_empty() => {}
                word => path.push(word),
            }
            let name = match tokens[*place] {
                "::" => continue,
                "as" => {
                    *place += 2;
                    tokens[*place - 1]
                }
                _ => path[path.len() - 1],
            };
            self.uses.push(Use {
                path,
                name,
                is_public,
            });
            return;
        }
    }
}

/// Where a path leads.
enum Lead<'a> {
    /// To the module itself.
    Module(Module<'a>),
    /// To something in its file.
    Into(Module<'a>),
}

/// The files of one crate that are compiled into it.
struct Crate<'a> {
    files: BTreeMap<Module<'a>, File<'a>>,
}

/// Who names whom, and by which path.
type Names<'a> = BTreeMap<(Module<'a>, Module<'a>), String>;

impl<'a> Crate<'a> {
    /// `sources` by their paths below `src/`.
    fn read(sources: &BTreeMap<&'a str, &'a str>) -> Crate<'a> {
        let mut files = BTreeMap::new();
        let mut waiting = vec![Vec::new()];
        while let Some(module) = waiting.pop() {
            let source = |module: &[&str]| sources.get(file_of(module).as_str());
            let text = *source(&module).expect("it is known to be there");
            let child = |name| [&module[..], &[name]].concat();
            let is_child = |name: &str| source(&[&module[..], &[name]].concat()).is_some();
            let file = File::read(&shipped(&tokens(text)), is_child);
            waiting.extend(file.children.iter().map(|name| child(*name)));
            files.insert(module, file);
        }
        Crate { files }
    }

    /// Where a path leads that stands in the file of a module; none if out of the crate.
    fn lead(&self, module: &[&'a str], path: &[&'a str], handed_on: u32) -> Option<Lead<'a>> {
        let mut module = module.to_vec();
        let is_root = |name: &&&str| ["crate", "self", "super"].contains(*name);
        let rooted = path.iter().take_while(is_root).count();
        for root in &path[..rooted] {
            match *root {
                "crate" => module.clear(),
                "super" => {
                    module.pop();
                }
                _ => {}
            }
        }
        for (place, &name) in path.iter().enumerate().skip(rooted) {
            let file = &self.files[&module];
            if file.children.contains(name) {
                module.push(name);
                continue;
            }
            let brought = file.uses.iter().find(|brought| brought.name == name);
            match brought.filter(|_| handed_on < HANDED_ON_MAX) {
                Some(brought) => match self.lead(&module, &brought.path, handed_on + 1)? {
                    Lead::Module(next) => module = next,
                    into => return Some(into),
                },
                // Something of its own, or of another crate.
                None if place == 0 => return None,
                None => return Some(Lead::Into(module)),
            }
        }
        Some(Lead::Module(module))
    }

    fn names(&self) -> Names<'a> {
        let mut names = BTreeMap::new();
        for (module, file) in &self.files {
            let of_uses = file.uses.iter().filter(|brought| {
                let handed_on = brought.is_public && !file.words.contains(brought.name);
                !handed_on || !self.is_below(module, &brought.path)
            });
            let paths = of_uses.map(|brought| &brought.path).chain(&file.paths);
            for path in paths {
                if let Some(Lead::Into(named)) = self.lead(module, path, 0)
                    && named != *module
                {
                    let edge = (module.clone(), named);
                    names.entry(edge).or_insert_with(|| path.join("::"));
                }
            }
        }
        names
    }

    /// Whoever names everything of a module names nothing that could be followed.
    fn globs(&self) -> impl Iterator<Item = String> {
        let all = self.files.iter();
        let all = all.flat_map(|(module, file)| file.uses.iter().map(move |one| (module, one)));
        let globs = all
            .filter(|(module, one)| one.name == "*" && self.lead(module, &one.path, 0).is_some());
        globs.map(|(module, one)| format!("{}: use {}", file_of(module), one.path.join("::")))
    }

    fn is_below(&self, module: &[&'a str], path: &[&'a str]) -> bool {
        let lead = self.lead(module, path, 0);
        matches!(lead, Some(Lead::Into(named)) if named.starts_with(module))
    }
}

/// The shortest circle that begins with `from` naming `to`, of which no file holds both.
///
/// That finds every circle that is not allowed: its highest file, or one below that, names one that is not, and no file of
/// the circle holds these two.
fn circle<'n, 'a>(
    names: &'n Names<'a>,
    (from, to): &'n (Module<'a>, Module<'a>),
) -> Option<Vec<&'n Module<'a>>> {
    if from.starts_with(to) || to.starts_with(from) {
        return None;
    }
    let holds_both = |module: &Module| from.starts_with(module) && to.starts_with(module);
    let mut came_from = BTreeMap::from([(to, from)]);
    let mut waiting = VecDeque::from([to]);
    while let Some(module) = waiting.pop_front() {
        if module == from {
            let mut circle = vec![from];
            while circle.len() == 1 || circle.last() != Some(&from) {
                circle.push(came_from[circle[circle.len() - 1]]);
            }
            circle.reverse();
            return Some(circle);
        }
        for (_, next) in names.keys().filter(|(namer, _)| namer == module) {
            if !holds_both(next) && !came_from.contains_key(next) {
                came_from.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// The circles that are not allowed, the shortest ones first, each file in one of them only.
fn circles(names: &Names) -> Vec<String> {
    let mut found: Vec<Vec<&Module>> = names
        .keys()
        .filter_map(|edge| circle(names, edge))
        .collect();
    found.sort_by_key(Vec::len);
    let mut told: BTreeSet<&Module> = BTreeSet::new();
    let mut circles = Vec::new();
    for circle in found {
        if circle.iter().any(|module| told.contains(module)) {
            continue;
        }
        told.extend(&circle);
        let steps = circle.windows(2).map(|pair| {
            let path = &names[&(pair[0].clone(), pair[1].clone())];
            format!("{} names {} ({path})", file_of(pair[0]), file_of(pair[1]))
        });
        circles.push(steps.collect::<Vec<String>>().join(", "));
    }
    circles
}

/// Catches files that cannot be understood, changed or moved one by one.
#[test]
fn no_file_is_in_a_circle_beyond_parent_and_child() {
    let sources = sources();
    let mut wrong = Vec::new();
    for folder in folders(&manifest(&top().join("Cargo.toml"))) {
        let below = format!("{}/src/", folder.name);
        let of_crate = sources.iter().filter_map(|source| {
            let path = source.path.strip_prefix(&below)?;
            Some((path, source.text.as_str()))
        });
        let of_crate = Crate::read(&of_crate.collect());
        let found = of_crate.globs().chain(circles(&of_crate.names()));
        wrong.extend(found.map(|found| format!("{}: {found}", folder.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is found in a crate of these files.
fn found(files: &[(&'static str, &'static str)]) -> Vec<String> {
    circles(&Crate::read(&files.iter().copied().collect()).names())
}

/// Catches a check that allows everything, and one that allows nothing.
#[test]
fn circles_are_found_through_whoever_hands_on() {
    let top = (
        "lib.rs",
        "mod a; mod b; pub use a::{A, Other}; pub use b::B;",
    );
    let b = ("b.rs", "use crate::A; pub struct B(A);");
    let direct = ("a.rs", "pub struct Other; pub struct A(crate::b::B);");
    let expected = "a.rs names b.rs (crate::b::B), b.rs names a.rs (crate::A)";
    assert_eq!(found(&[top, direct, b]), [expected]);
    let handed_on = (
        "a.rs",
        "use super::{Other, B as Named}; pub struct A(Named);",
    );
    assert_eq!(found(&[top, handed_on, b]).len(), 1);
    for harmless in [
        "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
        "pub struct A; // crate::b::B\nconst TEXT: &str = \"crate::b::B\";",
        "pub struct A; #[cfg(test)] fn of<X, Y>(b: crate::b::B) {}",
        "use crate::b; pub struct A;",
    ] {
        assert_eq!(found(&[top, ("a.rs", harmless), b]), [""; 0], "{harmless}");
    }
}

/// Catches the same of modules and what lies below them.
#[test]
fn a_module_may_hold_a_circle_and_two_may_not() {
    let top = ("lib.rs", "mod a; mod b;");
    let a = ("a.rs", "mod child; pub struct A(child::Child);");
    let b = ("b.rs", "pub struct B;");
    let child = ("a/child.rs", "pub struct Child(Box<super::A>);");
    assert_eq!(found(&[top, a, b, child]), [""; 0]);
    // The child is named by who names its parent: what is handed on is no way out.
    let a = (
        "a.rs",
        "mod child; pub use child::Child; pub struct A(crate::b::B);",
    );
    let b = ("b.rs", "pub struct B(crate::a::Child);");
    assert_eq!(found(&[top, a, b, child]).len(), 1);
    let lone = ("a/child.rs", "pub struct Child;");
    assert_eq!(found(&[top, a, b, lone]), [""; 0]);
    // Two children that name each other: their parent holds them, and is no part of their circle.
    let a = ("a.rs", "mod child; mod other;");
    let child = (
        "a/child.rs",
        "use super::other::Other; pub struct Child(Other);",
    );
    let other = ("a/other.rs", "pub struct Other(super::child::Child);");
    assert_eq!(found(&[top, a, b, child, other]).len(), 1);
}
