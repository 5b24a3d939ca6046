//! The header's text: a Python dictionary of three plain entries.

/// What the dictionary says, nothing checked but its form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dictionary {
    pub(super) descr: String,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<u64>,
}

/// Reads the text; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Dictionary, &'static str> {
    let mut rest = Text(text.trim_end());
    rest.expect("{")?;
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.take("}") {
        let key = rest.string()?;
        rest.expect(":")?;
        let twice = match key {
            "descr" if rest.looks_at('[') => return Err("its elements have fields"),
            "descr" => descr.replace(rest.string()?.to_owned()).is_some(),
            "fortran_order" => fortran_order.replace(rest.truth()?).is_some(),
            "shape" => shape.replace(rest.tuple()?).is_some(),
            _ => return Err("it has an entry that is none of the format"),
        };
        if twice {
            return Err("it has an entry twice");
        }
        if !rest.take(",") && !rest.looks_at('}') {
            return Err("an entry is not followed by a comma");
        }
    }
    if !rest.0.trim().is_empty() {
        return Err("something follows the dictionary");
    }
    Ok(Dictionary {
        descr: descr.ok_or("it has no descr")?,
        fortran_order: fortran_order.ok_or("it has no fortran_order")?,
        shape: shape.ok_or("it has no shape")?,
    })
}

/// What is left of the text.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn looks_at(&mut self, first: char) -> bool {
        self.0 = self.0.trim_start();
        self.0.starts_with(first)
    }

    fn take(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        let after = self.0.strip_prefix(token);
        self.0 = after.unwrap_or(self.0);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), &'static str> {
        match self.take(token) {
            true => Ok(()),
            false => Err("it is not a dictionary of plain entries"),
        }
    }

    /// A string in either quotes; numpy writes none that needs an escape.
    fn string(&mut self) -> Result<&'a str, &'static str> {
        for quote in ['\'', '"'] {
            if self.looks_at(quote) {
                let inner = self.0.strip_prefix(quote).unwrap_or_default();
                let (string, after) = inner.split_once(quote).ok_or("a string does not end")?;
                if string.contains('\\') {
                    return Err("a string has an escape");
                }
                self.0 = after;
                return Ok(string);
            }
        }
        Err("a string is missing")
    }

    fn truth(&mut self) -> Result<bool, &'static str> {
        if self.take("True") {
            Ok(true)
        } else if self.take("False") {
            Ok(false)
        } else {
            Err("fortran_order is neither True nor False")
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, &'static str> {
        const NO_SHAPE: &str = "its shape is no tuple of whole numbers";
        if !self.take("(") {
            return Err(NO_SHAPE);
        }
        let mut dimensions = Vec::new();
        while !self.take(")") {
            self.0 = self.0.trim_start();
            let digits = self.0.find(|c: char| !c.is_ascii_digit());
            let (number, after) = self
                .0
                .split_at_checked(digits.ok_or(NO_SHAPE)?)
                .ok_or(NO_SHAPE)?;
            dimensions.push(number.parse().map_err(|_| NO_SHAPE)?);
            // Python 2 wrote long integers with an L.
            self.0 = after.strip_prefix('L').unwrap_or(after);
            let comma = self.take(",");
            if !comma && (dimensions.len() == 1 || !self.looks_at(')')) {
                return Err(NO_SHAPE);
            }
        }
        Ok(dimensions)
    }
}
