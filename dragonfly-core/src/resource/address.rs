//! URLs in a spec: which value is wrong, and what is to stand there.

use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use crate::text::shown_url;

fn url<'de, D: Deserializer<'de>>(text: &str, write: &str) -> Result<Url, D::Error> {
    Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            D::Error::custom(format!("`{}` does not begin with a scheme; write {write}", shown_url(text)))
        }
        error => D::Error::custom(format!("`{}` is not an URL ({error}); write {write}", shown_url(text))),
    })
}

/// The address of a controller.
pub(super) fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    url::<D>(&String::deserialize(deserializer)?, "ipmi://10.0.0.6 or redfish://10.0.0.5/redfish/v1/Systems/1")
}

/// Where an iPXE script is.
pub(super) fn script<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| url::<D>(&text, "http://..., https://... or tftp://...")).transpose()
}

#[cfg(test)]
mod tests {
    use crate::resource::manifest;

    fn said(spec: &str) -> String {
        let text =
            format!("apiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {{name: a}}\nspec:\n  {spec}\n");
        manifest::parse(&text).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn an_url_that_cannot_be_used_is_named_with_what_is_expected() {
        for (spec, want) in [
            (
                "bmc: {address: 10.0.0.5}",
                "line 5: spec.bmc.address: `10.0.0.5` does not begin with a scheme; write ipmi://10.0.0.6 or redfish://",
            ),
            (
                "bmc: {address: 'ipmi://[::1'}",
                "spec.bmc.address: `ipmi://[::1` is not an URL (invalid IPv6 address); write ipmi://",
            ),
            (
                "chain: boot.example/x.ipxe",
                "spec.chain: `boot.example/x.ipxe` does not begin with a scheme; write http://...",
            ),
            ("chain: ftp://a/x", "spec.chain: `ftp://a/x`: iPXE fetches by http, https or tftp"),
            ("bmc: {address: 5}", "spec.bmc.address: invalid type: integer `5`, expected a string"),
        ] {
            assert!(said(spec).contains(want), "{spec}: {}", said(spec));
        }
        for spec in
            ["bmc: {address: '//root:calvin@10.0.0.5'}", "chain: 'root:calvin@h/x?calvin'", "chain: 'h/x?k=calvin'"]
        {
            assert!(!said(spec).is_empty() && !said(spec).contains("calvin"), "{}", said(spec));
        }
        assert_eq!(said("{chain: 'http://a/x', bmc: {address: 'ipmi://10.0.0.5'}}"), "");
        assert_eq!(said("chain: null"), "");
    }
}
