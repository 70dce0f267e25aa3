// Package bom reads what a piece of software says it is made of: CycloneDX 1.2 to 1.6 (JSON, XML) and SPDX 2.1 to 2.3 (JSON, tag and value).
//
// Stage 0, before build. Both formats become one Document, so that everything behind it knows one. What it guarantees: what is read is bounded;
// a document that names no root, or one thing twice under one reference, is an error and not a shorter list; what a component does not say (its
// version, its package URL) stays empty and is counted by Unknown, because nothing can be known of such a component. It believes nothing else that the document says.
package bom

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/package-url/packageurl-go"
)

// Bounds of a document.
const (
	MaxSize       = 64 << 20 // bytes
	MaxComponents = 100_000
	maxText       = 1024 // bytes of a name, version, supplier or package URL
)

// ErrFormat is a document that is not one of the formats, or not well made.
var ErrFormat = errors.New("no bill of materials that can be read")

// Document is a bill of materials.
type Document struct {
	Format     string      `json:"format" enum:"CycloneDX,SPDX"`
	Spec       string      `json:"spec" doc:"version of the format"`
	ID         string      `json:"id,omitempty" doc:"serial number (CycloneDX) or namespace (SPDX)"`
	Root       Component   `json:"root" doc:"what the document is about"`
	Components []Component `json:"components" doc:"all else, in the document's order, without nesting"`
}

// Component is one thing that is inside.
type Component struct {
	Name     string   `json:"name"`
	Version  string   `json:"version,omitempty"`
	PURL     string   `json:"purl,omitempty" doc:"package URL"`
	Supplier string   `json:"supplier,omitempty"`
	SHA256   string   `json:"sha256,omitempty" doc:"hex"`
	Licenses []string `json:"licenses,omitempty" doc:"SPDX identifiers, expressions or names"`
}

// Known reports whether the component can be looked up anywhere: it has a package URL and a version.
func (c Component) Known() bool { return c.PURL != "" && c.Version != "" }

// Unknown counts the components, but for the root, that nothing can be known of.
func (d Document) Unknown() int {
	n := 0
	for _, c := range d.Components {
		if !c.Known() {
			n++
		}
	}
	return n
}

// Has reports whether the document names bytes by their SHA-256, as its root or as something inside.
func (d Document) Has(digest []byte) bool {
	want := hex.EncodeToString(digest)
	if d.Root.SHA256 == want {
		return true
	}
	for _, c := range d.Components {
		if c.SHA256 == want {
			return true
		}
	}
	return false
}

// Read reads a document of any of the formats.
func Read(data []byte) (d Document, err error) {
	if len(data) > MaxSize {
		return d, fmt.Errorf("%w: %d bytes, at most %d are read", ErrFormat, len(data), MaxSize)
	}
	defer func() { // libraries read it: what they stumble over is the document's fault
		if p := recover(); p != nil {
			d, err = Document{}, fmt.Errorf("%w: %v", ErrFormat, p)
		}
	}()
	switch text := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n"); {
	case bytes.HasPrefix(text, []byte("<")):
		d, err = readCycloneXML(text)
	case bytes.HasPrefix(text, []byte("{")):
		d, err = readJSON(text)
	case bytes.HasPrefix(text, []byte("SPDX")), bytes.HasPrefix(text, []byte("#")):
		d, err = readTags(text)
	default:
		return d, fmt.Errorf("%w: neither JSON, XML nor tags and values", ErrFormat)
	}
	if err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := d.check(); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return d, nil
}

func (d *Document) check() error {
	if d.Root.Name == "" {
		return errors.New("it does not say what it is about (CycloneDX: metadata.component; SPDX: what the document DESCRIBES)")
	}
	if len(d.Components) > MaxComponents {
		return fmt.Errorf("%d components, at most %d are read", len(d.Components), MaxComponents)
	}
	if err := d.Root.check(); err != nil {
		return err
	}
	for i := range d.Components {
		if err := d.Components[i].check(); err != nil {
			return err
		}
	}
	return nil
}

// check makes the component's package URL the one way that it is written.
func (c *Component) check() error {
	if c.Name == "" {
		return errors.New("a component has no name")
	}
	for _, s := range append([]string{c.Name, c.Version, c.PURL, c.Supplier}, c.Licenses...) {
		if len(s) > maxText || !utf8.ValidString(s) {
			return fmt.Errorf("component %.64q has a field that is too long or not UTF-8", c.Name)
		}
	}
	if raw, err := hex.DecodeString(c.SHA256); err != nil || c.SHA256 != "" && len(raw) != 32 {
		return fmt.Errorf("component %q has SHA-256 %q", c.Name, c.SHA256)
	}
	c.SHA256 = strings.ToLower(c.SHA256)
	if c.PURL == "" {
		return nil
	}
	p, err := packageurl.FromString(c.PURL)
	if err != nil {
		return fmt.Errorf("component %q has the package URL %q: %w", c.Name, c.PURL, err)
	}
	if c.Version == "" {
		c.Version = p.Version
	}
	c.PURL = p.ToString()
	return nil
}
