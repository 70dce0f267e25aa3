package bom

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/tagvalue"
)

func readSPDX(text []byte) (Document, error) {
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		return Document{}, err
	}
	return fromSPDX(doc)
}

func readTags(text []byte) (Document, error) {
	doc, err := tagvalue.Read(bytes.NewReader(text))
	if err != nil {
		return Document{}, err
	}
	return fromSPDX(doc)
}

func fromSPDX(doc *spdx.Document) (Document, error) {
	if doc == nil {
		return Document{}, errors.New("an SPDX document without content")
	}
	d := Document{Format: "SPDX", Spec: strings.TrimPrefix(doc.SPDXVersion, "SPDX-"), ID: doc.DocumentNamespace}
	root, err := described(doc)
	if err != nil {
		return d, err
	}
	seen := map[common.ElementID]bool{}
	for _, p := range doc.Packages {
		if p == nil {
			continue
		}
		if seen[p.PackageSPDXIdentifier] {
			return d, fmt.Errorf("two packages have the identifier %q", p.PackageSPDXIdentifier)
		}
		seen[p.PackageSPDXIdentifier] = true
		if p.PackageSPDXIdentifier == root {
			d.Root = spdxPackage(p)
			continue
		}
		d.Components = append(d.Components, spdxPackage(p))
	}
	// A file that was not put into any package is inside as well, and nothing more is known of it than its digest.
	for _, f := range doc.Files {
		if f != nil {
			d.Components = append(d.Components, Component{Name: f.FileName, SHA256: sha256Of(f.Checksums)})
		}
	}
	return d, nil
}

// described is the one thing that the document describes.
func described(doc *spdx.Document) (common.ElementID, error) {
	var found []common.ElementID
	add := func(id common.ElementID) {
		if !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	for _, r := range doc.Relationships {
		if r == nil {
			continue
		}
		switch {
		case r.Relationship == common.TypeRelationshipDescribe && r.RefA.ElementRefID == doc.SPDXIdentifier:
			add(r.RefB.ElementRefID)
		case r.Relationship == common.TypeRelationshipDescribeBy && r.RefB.ElementRefID == doc.SPDXIdentifier:
			add(r.RefA.ElementRefID)
		}
	}
	if len(found) > 1 {
		return "", fmt.Errorf("it describes %d things: make one document for each, or one package that contains them", len(found))
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return "", nil // check says it
}

func spdxPackage(p *spdx.Package) Component {
	c := Component{Name: p.PackageName, Version: p.PackageVersion, SHA256: sha256Of(p.PackageChecksums)}
	if p.PackageSupplier != nil && p.PackageSupplier.Supplier != noAssertion {
		c.Supplier = p.PackageSupplier.Supplier
	}
	for _, r := range p.PackageExternalReferences {
		if r != nil && r.RefType == common.TypePackageManagerPURL {
			c.PURL = r.Locator
		}
	}
	for _, l := range []string{p.PackageLicenseConcluded, p.PackageLicenseDeclared} {
		if l != "" && l != noAssertion && l != "NONE" {
			c.Licenses = []string{l}
			break
		}
	}
	return c
}

const noAssertion = "NOASSERTION"

func sha256Of(all []common.Checksum) string {
	for _, s := range all {
		if s.Algorithm == common.SHA256 {
			return s.Value
		}
	}
	return ""
}
