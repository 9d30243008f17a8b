//! Inside a JSON string: where it ends, and whether a place in it belongs to JSON in JSON.
//!
//! A string may itself hold a JSON document. The quotes of that document are `\"` here, or `\u0022`,
//! which some writers prefer (.NET, PHP with `JSON_HEX_QUOT`); its reverse solidi are `\\` or
//! `\u005c`. This follows the text that the string stands for, so that all spellings count alike: a
//! quote of that text begins or ends a string of the inner document unless an odd number of reverse
//! solidi of that text stands directly before it.

/// Where in a string the scanner is.
#[derive(Debug, Default)]
pub(super) struct StringState {
    pub(super) is_key: bool,
    escape: Escape,
    /// An odd number of reverse solidi of the text stands directly before.
    is_after_solidus: bool,
    /// A quote of the text stands directly before.
    is_after_quote: bool,
    /// In a string of an inner document.
    is_inner: bool,
    /// Between quotes of the text that are escaped in it once more, outside any inner string: a
    /// piece of a document that was cut out of another.
    is_deeper: bool,
}

/// An escape that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Number {
        digits: u8,
        value: u16,
    },
}

impl StringState {
    pub(super) fn new(is_key: bool) -> Self {
        Self {
            is_key,
            ..Self::default()
        }
    }

    /// Takes one byte; true when it ends the string.
    pub(super) fn feed(&mut self, byte: u8) -> bool {
        match std::mem::take(&mut self.escape) {
            Escape::None => match byte {
                b'"' => return true,
                b'\\' => self.escape = Escape::Begun,
                _ => self.other(),
            },
            Escape::Begun => match byte {
                b'"' => self.quote(),
                b'\\' => self.solidus(),
                b'u' => {
                    self.escape = Escape::Number {
                        digits: 0,
                        value: 0,
                    }
                }
                _ => self.other(),
            },
            Escape::Number { digits, value } => return self.number(byte, digits, value),
        }
        false
    }

    /// Takes bytes of which none is a quote or a reverse solidus, outside an escape.
    pub(super) fn other(&mut self) {
        self.is_after_solidus = false;
        self.is_after_quote = false;
    }

    pub(super) fn is_in_escape(&self) -> bool {
        self.escape != Escape::None
    }

    /// Whether a token at this place passes unchanged.
    pub(super) fn keeps_tokens(&self) -> bool {
        self.is_key || self.is_in_escape() || self.is_inner || self.is_deeper
    }

    pub(super) fn is_after_quote(&self) -> bool {
        self.is_after_quote
    }

    fn number(&mut self, byte: u8, digits: u8, value: u16) -> bool {
        let digit = char::from(byte)
            .to_digit(16)
            .and_then(|digit| u16::try_from(digit).ok());
        let Some(digit) = digit else {
            // Not JSON: the escape ends here, and the byte counts as itself.
            self.other();
            return self.feed(byte);
        };
        let value = (value << 4) | digit;
        match (digits, value) {
            (3, 0x22) => self.quote(),
            (3, 0x5C) => self.solidus(),
            (3, _) => self.other(),
            _ => {
                self.escape = Escape::Number {
                    digits: digits.saturating_add(1),
                    value,
                };
            }
        }
        false
    }

    /// A quote of the text.
    fn quote(&mut self) {
        if self.is_after_solidus {
            self.is_deeper = !self.is_deeper;
        } else {
            self.is_inner = !self.is_inner;
            // An inner string takes the deeper ones in it with it.
            self.is_deeper = false;
        }
        self.is_after_solidus = false;
        self.is_after_quote = true;
    }

    /// A reverse solidus of the text.
    fn solidus(&mut self) {
        self.is_after_solidus = !self.is_after_solidus;
        self.is_after_quote = false;
    }
}
