package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// sbom lists the modules that a Go program was built of, as the program itself says.
func (b build) sbom(program string) ([]byte, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	of := func(module, version string) cyclonedx.Component {
		purl := "pkg:golang/" + module + "@" + version
		return cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: module, Version: version, PackageURL: purl}
	}
	self := of(info.Main.Path, "v"+b.version)
	self.Type, self.Name = cyclonedx.ComponentTypeApplication, path.Base(info.Path)
	self.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	self.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	self.ExternalReferences = &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeVCS, URL: b.source, Comment: "commit " + b.commit}}
	self.Properties = &[]cyclonedx.Property{}
	for _, s := range info.Settings {
		if s.Key == "GOOS" || s.Key == "GOARCH" || s.Key == "CGO_ENABLED" {
			*self.Properties = append(*self.Properties, cyclonedx.Property{Name: "go:build:" + s.Key, Value: s.Value})
		}
	}

	components := []cyclonedx.Component{of("std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range info.Deps {
		c, err := component(m, of)
		if err != nil {
			return nil, err
		}
		components = append(components, c)
	}
	refs := []string{}
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Timestamp: b.at.Format(time.RFC3339), Component: &self}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: self.BOMRef, Dependencies: &refs}}
	var out bytes.Buffer
	enc := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON)
	enc.SetPretty(true)
	err = enc.EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	return out.Bytes(), err
}

// component is a module, with the hash that the Go checksum database has of it.
func component(m *debug.Module, of func(module, version string) cyclonedx.Component) (cyclonedx.Component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	c := of(m.Path, m.Version)
	sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
	if err != nil || len(sum) != sha256.Size {
		return c, fmt.Errorf("%s@%s has no checksum: %q", m.Path, m.Version, m.Sum)
	}
	c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
	return c, nil
}
