package pkcs11

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// URI names a token, or a key in one (RFC 7512): pkcs11:token=LABEL;object=KEY?module-path=LIBRARY&pin-source=FILE. Other attributes of the RFC are
// refused rather than left out, because they would narrow down what is meant; so is pin-value, because arguments are seen by others.
type URI struct {
	Token  string // its label
	Object string // label of the key; empty: the token
	Module string // absolute path of the library
	PIN    string // file that holds the PIN; empty: it is asked for
}

// Scheme is what the URIs begin with.
const Scheme = "pkcs11:"

const maxURI = 2048

// ParseURI reads one.
func ParseURI(text string) (u URI, err error) {
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok || len(text) > maxURI {
		return u, fmt.Errorf("%.80q is no PKCS#11 URI: want pkcs11:token=LABEL?module-path=/path/of/library.so", text)
	}
	path, query, _ := strings.Cut(rest, "?")
	attributes := map[string]*string{"token": &u.Token, "object": &u.Object}
	if err := attributesOf(path, ";", attributes); err != nil {
		return URI{}, err
	}
	if err := attributesOf(query, "&", map[string]*string{"module-path": &u.Module, "pin-source": &u.PIN}); err != nil {
		return URI{}, err
	}
	u.PIN = strings.TrimPrefix(u.PIN, "file:")
	if u.Token == "" || !filepath.IsAbs(u.Module) || u.PIN != "" && !filepath.IsAbs(u.PIN) {
		return URI{}, fmt.Errorf("%q: want a token, and absolute paths of the module and of the PIN's file", text)
	}
	return u, nil
}

// attributesOf reads NAME=VALUE, percent-encoded, each once.
func attributesOf(text, between string, into map[string]*string) error {
	if text == "" {
		return nil
	}
	for pair := range strings.SplitSeq(text, between) {
		name, encoded, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(encoded)
		to := into[name]
		switch {
		case to == nil:
			return fmt.Errorf("PKCS#11 URI: %q is not understood: want token, object, module-path and pin-source", name)
		case err != nil || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("PKCS#11 URI: %s has no value that can be used", name)
		case *to != "":
			return fmt.Errorf("PKCS#11 URI: %s is there twice", name)
		}
		*to = value
	}
	return nil
}
