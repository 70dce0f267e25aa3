package bom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/CycloneDX/cyclonedx-go"
)

func readJSON(text []byte) (Document, error) {
	var head struct {
		Format string `json:"bomFormat"`
		SPDX   string `json:"spdxVersion"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return Document{}, err
	}
	switch {
	case head.SPDX != "":
		return readSPDX(text)
	case head.Format == cyclonedx.BOMFormat:
		return readCyclone(text, cyclonedx.BOMFileFormatJSON)
	}
	return Document{}, errors.New("JSON without bomFormat or spdxVersion")
}

func readCycloneXML(text []byte) (Document, error) {
	return readCyclone(text, cyclonedx.BOMFileFormatXML)
}

func readCyclone(text []byte, format cyclonedx.BOMFileFormat) (Document, error) {
	var b cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(text), format).Decode(&b); err != nil {
		return Document{}, err
	}
	d := Document{Format: "CycloneDX", Spec: b.SpecVersion.String(), ID: b.SerialNumber}
	if b.SpecVersion == 0 {
		return d, errors.New("a CycloneDX document of no version that is known")
	}
	if b.Metadata == nil || b.Metadata.Component == nil {
		return d, nil // check says it
	}
	w := cyclone{seen: map[string]bool{}}
	root := *b.Metadata.Component
	d.Root = w.component(root)
	for _, list := range []*[]cyclonedx.Component{root.Components, b.Components} {
		if err := w.walk(list, 0); err != nil {
			return d, err
		}
	}
	d.Components = w.all
	return d, nil
}

// cyclone gathers components.
type cyclone struct {
	seen map[string]bool // references
	all  []Component
}

// maxNesting bounds how deep components lie in components.
const maxNesting = 64

func (w *cyclone) walk(list *[]cyclonedx.Component, depth int) error {
	if list == nil {
		return nil
	}
	if depth > maxNesting {
		return fmt.Errorf("components lie more than %d deep in each other", maxNesting)
	}
	for _, c := range *list {
		if c.BOMRef != "" && w.seen[c.BOMRef] {
			return fmt.Errorf("two components have the reference %q", c.BOMRef)
		}
		w.seen[c.BOMRef] = true
		if len(w.all) >= MaxComponents {
			return fmt.Errorf("more than %d components", MaxComponents)
		}
		w.all = append(w.all, w.component(c))
		if err := w.walk(c.Components, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *cyclone) component(c cyclonedx.Component) Component {
	out := Component{Name: c.Name, Version: c.Version, PURL: c.PackageURL}
	if c.Group != "" {
		out.Name = c.Group + "/" + c.Name
	}
	switch {
	case c.Supplier != nil && c.Supplier.Name != "":
		out.Supplier = c.Supplier.Name
	case c.Manufacturer != nil:
		out.Supplier = c.Manufacturer.Name
	}
	if c.Hashes != nil {
		for _, h := range *c.Hashes {
			if h.Algorithm == cyclonedx.HashAlgoSHA256 {
				out.SHA256 = h.Value
			}
		}
	}
	if c.Licenses != nil {
		for _, l := range *c.Licenses {
			switch {
			case l.Expression != "":
				out.Licenses = append(out.Licenses, l.Expression)
			case l.License != nil && l.License.ID != "":
				out.Licenses = append(out.Licenses, l.License.ID)
			case l.License != nil && l.License.Name != "":
				out.Licenses = append(out.Licenses, l.License.Name)
			}
		}
	}
	return out
}
