package demo

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/hallmark-iot/hallmark/release"
)

// part is what a release has besides its program.
type part struct {
	release.Component
	built []byte // SHA-256 of what its build made: another than the artifact's where that is sealed
}

// contents is the bill of materials of a version, as a build writes it: the modules that a Go program says it was made of, with what lies beside it.
func contents(version string, image []byte, beside []part) ([]byte, error) {
	sum := sha256.Sum256(image)
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		Type: cyclonedx.ComponentTypeFirmware, Name: productID, Version: version,
		Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	}}
	inside := []cyclonedx.Component{}
	for _, c := range beside {
		inside = append(inside, cyclonedx.Component{
			BOMRef: c.Name, Type: cyclonedx.ComponentTypeFile, Name: c.Name, Version: c.Version, Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(c.built)}},
		})
	}
	if info, err := buildinfo.Read(bytes.NewReader(image)); err == nil {
		add := func(name, version string) {
			purl := "pkg:golang/" + name + "@" + version
			inside = append(inside, cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl})
		}
		if len(info.GoVersion) > 2 {
			add("stdlib", "v"+info.GoVersion[2:])
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			add(m.Path, m.Version)
		}
	}
	bom.Components = &inside
	var out bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).Encode(bom)
	return out.Bytes(), err
}
