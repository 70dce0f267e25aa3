package osv

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/osv-scalibr/semantic"
	"github.com/package-url/packageurl-go"
)

// Package is a package as advisories name it.
type Package struct {
	Ecosystem string `json:"ecosystem"` // with the release, where versions belong to one: Debian:12
	Name      string `json:"name"`
}

// Base is the ecosystem without a release.
func (p Package) Base() string {
	base, _, _ := strings.Cut(p.Ecosystem, ":")
	return base
}

// Key finds what may be the same package: its ecosystem without the release, and its name without regard to case. Package URLs write many names in lower case
// that advisories do not (github.com/Masterminds/semver), and no ecosystem has two packages that case alone tells apart and that anybody relies on.
func (p Package) Key() string { return strings.ToLower(p.Base() + "\x1f" + p.Name) }

// release is the ecosystem with its release, to be compared by beginnings. What Ubuntu mends for those who pay is of the release that it is for.
func (p Package) release() string {
	return strings.Replace(p.Ecosystem, "Ubuntu:Pro:", "Ubuntu:", 1) + ":"
}

// Is reports whether the package is what an advisory names. An advisory for a whole ecosystem is about each of its releases, and the other way round: what does not say of which release it is
// may be of any.
func (p Package) Is(named Package) bool {
	if p.Key() != named.Key() {
		return false
	}
	a, b := p.release(), named.release()
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) // Ubuntu:22.04 and Ubuntu:22.04:LTS
}

// Ecosystem reports whether the versions of an ecosystem can be compared here.
func Ecosystem(base string) bool {
	_, err := semantic.Parse("1", base)
	return !strings.Contains(base, ":") && !errors.Is(err, semantic.ErrUnsupportedEcosystem)
}

// Ecosystems lists those that package URLs lead to.
func Ecosystems() string {
	var all []string
	for _, m := range []map[string]string{ecosystems, systems} {
		for _, e := range m {
			if Ecosystem(e) && !slices.Contains(all, e) {
				all = append(all, e)
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// ecosystems are those of package URLs' types. The types of operating systems are not here: their ecosystem is in a namespace.
var ecosystems = map[string]string{
	"bitnami": "Bitnami", "cargo": "crates.io", "composer": "Packagist", "conan": "ConanCenter", "cran": "CRAN", "gem": "RubyGems", "golang": "Go",
	"hackage": "Hackage", "hex": "Hex", "julia": "Julia", "maven": "Maven", "npm": "npm", "nuget": "NuGet", "pub": "Pub", "pypi": "PyPI", "swift": "SwiftURL",
}

// systems are the ecosystems of operating systems' packages, by type and namespace.
var systems = map[string]string{
	"deb/debian": "Debian", "deb/ubuntu": "Ubuntu", "apk/alpine": "Alpine", "apk/wolfi": "Wolfi", "apk/chainguard": "Chainguard",
	"rpm/redhat": "Red Hat", "rpm/rocky": "Rocky Linux", "rpm/rockylinux": "Rocky Linux", "rpm/almalinux": "AlmaLinux", "rpm/opensuse": "openSUSE", "rpm/suse": "SUSE",
	"rpm/openeuler": "openEuler", "rpm/mageia": "Mageia",
}

// Of is the package, and its version, that a package URL names; false when advisories have no name for it.
func Of(purl string) (p Package, version string, ok bool) {
	u, err := packageurl.FromString(purl)
	if err != nil {
		return p, "", false
	}
	full := u.Name
	if u.Namespace != "" {
		full = u.Namespace + "/" + u.Name
	}
	if eco, ok := ecosystems[u.Type]; ok {
		switch eco {
		case "Maven":
			full = u.Namespace + ":" + u.Name
		case "PyPI":
			full = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(u.Name)) // PEP 503
		case "Go":
			if full == "std" || full == "stdlib" || full == "cmd" {
				full = map[string]string{"std": "stdlib", "stdlib": "stdlib", "cmd": "toolchain"}[full]
			}
		case "ConanCenter", "Hackage", "CRAN", "RubyGems", "crates.io", "Pub", "Julia":
			full = u.Name
		}
		return Package{Ecosystem: eco, Name: full}, u.Version, true
	}
	eco, ok := systems[u.Type+"/"+u.Namespace]
	if !ok {
		return p, "", false
	}
	q := u.Qualifiers.Map()
	name, version := u.Name, u.Version
	if up, at, has := strings.Cut(q["upstream"], "@"); up != "" { // advisories name sources
		name = sourceName(up)
		if has {
			version = at
		}
	}
	if epoch := q["epoch"]; epoch != "" && epoch != "0" && !strings.Contains(version, ":") {
		version = epoch + ":" + version
	}
	if release := releaseOf(eco, q["distro"]); release != "" {
		eco += ":" + release
	}
	return Package{Ecosystem: eco, Name: name}, version, true
}

// sourceName is a source package's name: of an RPM's file, NAME-VERSION-RELEASE.src.rpm, what stands before the version.
func sourceName(up string) string {
	file, ok := strings.CutSuffix(up, ".src.rpm")
	if !ok {
		return up
	}
	for range 2 {
		if i := strings.LastIndexByte(file, '-'); i > 0 {
			file = file[:i]
		}
	}
	return file
}

// releaseOf is an operating system's release as its ecosystem names it: Debian:12, Alpine:v3.20, Ubuntu:22.04.
func releaseOf(eco, distro string) string {
	_, number, ok := strings.Cut(distro, "-")
	if !ok {
		number = distro
	}
	number = strings.TrimPrefix(number, "v")
	if number == "" || number[0] < '0' || number[0] > '9' {
		return "" // a name, or nothing
	}
	parts := strings.Split(number, ".")
	switch eco {
	case "Debian", "Rocky Linux", "AlmaLinux":
		return parts[0]
	case "Alpine":
		if len(parts) < 2 {
			return ""
		}
		return "v" + parts[0] + "." + parts[1]
	case "Ubuntu":
		return strings.Join(parts[:min(2, len(parts))], ".")
	}
	return ""
}

// lively are ecosystems whose file has a new or changed advisory each few days.
var lively = []string{"npm", "PyPI", "Go", "Maven", "Packagist", "crates.io", "Debian", "Ubuntu"}

// Lively reports whether a file of an ecosystem without a new advisory for a month is an old one.
func Lively(base string) bool { return slices.Contains(lively, base) }
