package bom_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/supply/bom"
)

const digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// One thing in each of the formats.
var same = map[string]string{
	"CycloneDX JSON": `{"bomFormat":"CycloneDX","specVersion":"1.6","serialNumber":"urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79","version":1,
		"metadata":{"component":{"type":"firmware","name":"pump","version":"1.1.0","hashes":[{"alg":"SHA-256","content":"` + digest + `"}]}},
		"components":[{"type":"library","bom-ref":"a","group":"github.com/acme","name":"lib","version":"v1.2.3","purl":"pkg:golang/github.com/acme/lib@v1.2.3","supplier":{"name":"Acme"},
			"licenses":[{"license":{"id":"MIT"}}],"components":[{"type":"library","bom-ref":"b","name":"inner"}]}]}`,
	"CycloneDX XML": `<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.6" serialNumber="urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79" version="1">
		<metadata><component type="firmware"><name>pump</name><version>1.1.0</version><hashes><hash alg="SHA-256">` + digest + `</hash></hashes></component></metadata>
		<components><component type="library" bom-ref="a"><supplier><name>Acme</name></supplier><group>github.com/acme</group><name>lib</name><version>v1.2.3</version>
			<licenses><license><id>MIT</id></license></licenses><purl>pkg:golang/github.com/acme/lib@v1.2.3</purl><components><component type="library" bom-ref="b"><name>inner</name></component></components></component></components></bom>`,
	"SPDX JSON": `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"pump","dataLicense":"CC0-1.0","documentNamespace":"https://acme.example/pump-1.1.0",
		"creationInfo":{"created":"2026-01-01T00:00:00Z","creators":["Tool: build"]},"packages":[
		{"SPDXID":"SPDXRef-root","name":"pump","versionInfo":"1.1.0","downloadLocation":"NOASSERTION","filesAnalyzed":false,"checksums":[{"algorithm":"SHA256","checksumValue":"` + digest + `"}]},
		{"SPDXID":"SPDXRef-a","name":"github.com/acme/lib","versionInfo":"v1.2.3","supplier":"Organization: Acme","downloadLocation":"NOASSERTION","filesAnalyzed":false,"licenseConcluded":"NOASSERTION","licenseDeclared":"MIT",
			"externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl","referenceLocator":"pkg:golang/github.com/acme/lib@v1.2.3"}]},
		{"SPDXID":"SPDXRef-b","name":"inner","downloadLocation":"NOASSERTION","filesAnalyzed":false}],
		"relationships":[{"spdxElementId":"SPDXRef-DOCUMENT","relationshipType":"DESCRIBES","relatedSpdxElement":"SPDXRef-root"}]}`,
	"SPDX tags": `SPDXVersion: SPDX-2.3
DataLicense: CC0-1.0
SPDXID: SPDXRef-DOCUMENT
DocumentName: pump
DocumentNamespace: https://acme.example/pump-1.1.0
Creator: Tool: build
Created: 2026-01-01T00:00:00Z

PackageName: pump
SPDXID: SPDXRef-root
PackageVersion: 1.1.0
PackageDownloadLocation: NOASSERTION
FilesAnalyzed: false
PackageChecksum: SHA256: ` + digest + `

PackageName: github.com/acme/lib
SPDXID: SPDXRef-a
PackageVersion: v1.2.3
PackageSupplier: Organization: Acme
PackageDownloadLocation: NOASSERTION
FilesAnalyzed: false
PackageLicenseDeclared: MIT
ExternalRef: PACKAGE-MANAGER purl pkg:golang/github.com/acme/lib@v1.2.3

PackageName: inner
SPDXID: SPDXRef-b
PackageDownloadLocation: NOASSERTION
FilesAnalyzed: false

Relationship: SPDXRef-DOCUMENT DESCRIBES SPDXRef-root
`,
}

func TestEachFormatSaysTheSame(t *testing.T) {
	for name, text := range same {
		d, err := bom.Read([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := "{pump 1.1.0   " + digest + " []} [{github.com/acme/lib v1.2.3 pkg:golang/github.com/acme/lib@v1.2.3 Acme  [MIT]} {inner     []}]"
		if got := fmt.Sprintf("%v %v", d.Root, d.Components); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		if d.Unknown() != 1 || !strings.Contains(name, d.Format) || d.Spec == "" || d.ID == "" {
			t.Errorf("%s: %d unknown; %s %s %s", name, d.Unknown(), d.Format, d.Spec, d.ID)
		}
		sum := []byte{0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad}
		if !d.Has(sum) || d.Has(make([]byte, 32)) {
			t.Errorf("%s: which bytes it is about", name)
		}
	}
}

func TestWhatIsNoBillOfMaterialsIsRefusedWithTheReason(t *testing.T) {
	cyclone := same["CycloneDX JSON"]
	for name, c := range map[string]struct{ text, want string }{
		"nothing":              {"", "neither JSON, XML nor tags"},
		"an image":             {"\x89PNG\r\n", "neither JSON, XML nor tags"},
		"other JSON":           {`{"a":1}`, "without bomFormat or spdxVersion"},
		"cut":                  {cyclone[:len(cyclone)-9], "unexpected end"},
		"no root":              {`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[{"type":"library","name":"lib"}]}`, "does not say what it is about"},
		"no version of it":     {strings.Replace(cyclone, `"1.6"`, `"9.9"`, 1), "invalid specification version"},
		"one reference twice":  {strings.Replace(cyclone, `"bom-ref":"b"`, `"bom-ref":"a"`, 1), `two components have the reference "a"`},
		"a digest that is not": {strings.Replace(cyclone, digest, "abc", 1), `SHA-256 "abc"`},
		"a package URL":        {strings.Replace(cyclone, "pkg:golang", "golang", 1), "package URL"},
		"no name":              {strings.Replace(cyclone, `"name":"inner"`, `"name":""`, 1), "has no name"},
		"a long name":          {strings.Replace(cyclone, `"inner"`, `"`+strings.Repeat("x", 5000)+`"`, 1), "too long"},
		"describes two":        {strings.Replace(same["SPDX tags"], "Relationship: ", "Relationship: SPDXRef-DOCUMENT DESCRIBES SPDXRef-a\nRelationship: ", 1), "describes 2 things"},
		"nested deep":          {strings.Replace(cyclone, `"components":[{"type":"library","bom-ref":"b","name":"inner"}]`, nested(100), 1), "deep in each other"},
	} {
		d, err := bom.Read([]byte(c.text))
		if err == nil || !errors.Is(err, bom.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%d components), want %q", name, err, len(d.Components), c.want)
		}
	}
}

func nested(n int) string {
	if n == 0 {
		return `"version":"1"`
	}
	return `"components":[{"type":"library","name":"x",` + nested(n-1) + `}]`
}

// TestDocumentsOfTheFormatsOwnProjects reads what the projects that keep the formats give as examples.
func TestDocumentsOfTheFormatsOwnProjects(t *testing.T) {
	read := 0
	for module, pattern := range map[string]string{"github.com/CycloneDX/cyclonedx-go": "testdata/valid-*", "github.com/spdx/tools-golang": "examples/sample-docs/*/SPDX*Example-v2.*.spdx*"} {
		dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			d, err := bom.Read(data)
			switch {
			case err == nil:
				read++
			case strings.Contains(err.Error(), "does not say what it is about"), strings.Contains(err.Error(), "describes 2 things"), strings.Contains(f, "/rdf/"), strings.Contains(f, "/xml/"), strings.Contains(f, "/yaml/"), strings.Contains(err.Error(), "SnippetSPDXID"): // the library reads no snippets in a package of tags
			default:
				t.Errorf("%s: %v (%s)", filepath.Base(f), err, d.Format)
			}
		}
	}
	if read < 6 {
		t.Errorf("%d documents were read", read)
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range same {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := bom.Read(data)
		if err != nil {
			if !errors.Is(err, bom.ErrFormat) {
				t.Errorf("%v", err)
			}
			return
		}
		if d.Root.Name == "" || len(d.Components) > bom.MaxComponents || d.Unknown() > len(d.Components) {
			t.Errorf("%+v", d.Root)
		}
		for _, c := range d.Components {
			if c.Name == "" || c.Known() != (c.PURL != "" && c.Version != "") {
				t.Errorf("%+v", c)
			}
		}
	})
}
