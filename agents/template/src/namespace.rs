//! Namespaces: the only values of a template that change once they are made. One that held itself would have no end: to count,
//! to print or to free it takes for ever. So nothing may hold a namespace: no list, no map, and no attribute of a namespace.

use std::ops::Range;

use minijinja::Value;
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// Where the values of the attributes that a template sets begin and end. For a block that is set as an attribute, as in
/// `{% set a.b | upper %}`, both are the end of its filters.
pub(crate) fn attribute_values(source: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut tag: Option<SetTag> = None;
    let (mut is_first, mut end) = (false, 0);
    // A text that is no template is refused by the compiler, with words of its own.
    for (token, span) in tokenize(source, false, SyntaxConfig::default()).map_while(Result::ok) {
        match token {
            Token::BlockStart => is_first = true,
            Token::Ident("set") if is_first => (tag, is_first) = (Some(SetTag::default()), false),
            Token::BlockEnd => places.extend(tag.take().and_then(|tag| tag.value(end))),
            token => {
                is_first = false;
                if let Some(tag) = &mut tag {
                    tag.read(&token, span.end_offset as usize);
                }
            }
        }
        end = span.end_offset as usize;
    }
    places
}

/// Whether a value is a namespace; its type is private to minijinja.
pub(crate) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// What was read of a tag that sets something.
#[derive(Default)]
struct SetTag {
    has_attribute: bool,
    /// The end of the `=`.
    value: Option<usize>,
    has_filter: bool,
}

impl SetTag {
    fn read(&mut self, token: &Token<'_>, end: usize) {
        if self.value.is_some() || self.has_filter {
            return;
        }
        match token {
            Token::Dot => self.has_attribute = true,
            Token::Assign => self.value = Some(end),
            Token::Pipe => self.has_filter = true,
            _ => {}
        }
    }

    fn value(self, end: usize) -> Option<Range<usize>> {
        let start = self.value.or(self.has_filter.then_some(end))?;
        self.has_attribute.then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_attributes_are_found_and_no_others() {
        let found = |source: &str| -> Vec<String> {
            attribute_values(source).into_iter().map(|place| source[place].to_owned()).collect()
        };
        assert_eq!(found("{% set a.b = 1 %}{%- set a.b=x.y -%}{% set a = b.c %}"), [" 1", "x.y"]);
        assert_eq!(found("{% set a, b.c = 1, 2 %}{% if a.b == 1 %}{% endif %}"), [" 1, 2"]);
        assert_eq!(found("{% set a.b | upper %}x{% endset %}{% set a.b %}x{% endset %}"), [""]);
        assert_eq!(found("{% raw %}{% set a.b = 1 %}{% endraw %}{# {% set a.b = 1 %} #}"), Vec::<String>::new());
    }

    #[test]
    fn a_namespace_is_told_from_other_values() {
        let namespace = minijinja::functions::namespace(None).unwrap();
        assert!(is_namespace(&namespace));
        assert!(!is_namespace(&Value::from(vec![1])) && !is_namespace(&Value::from(1)));
    }
}
