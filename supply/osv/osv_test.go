package osv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/supply/osv"
)

// As the Go vulnerability database has it, shortened.
const goAdvisory = `{"schema_version":"1.3.1","id":"GO-2024-2887","modified":"2024-06-12T18:20:04Z","published":"2024-06-04T22:48:55Z","aliases":["CVE-2024-24790"],
	"summary":"Unexpected behavior from Is methods for IPv4-mapped IPv6 addresses in net/netip","affected":[{"package":{"name":"stdlib","ecosystem":"Go"},
	"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.21.11"},{"introduced":"1.22.0-0"},{"fixed":"1.22.4"}]}]}]}`

const debian = `{"id":"DSA-5678-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"openssl","ecosystem":"Debian:12"},
	"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.0.14-1~deb12u1"}]}]}]}`

const last = `{"id":"PYSEC-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"acme-lib","ecosystem":"PyPI"},
	"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"1.0"},{"last_affected":"1.5"}]}],"versions":["0.9b2"]}]}`

const commits = `{"id":"OSV-2024-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"acme","ecosystem":"crates.io"},"ranges":[{"type":"GIT","events":[{"introduced":"0"}]}]}]}`

func TestWhetherAVersionIsAffected(t *testing.T) {
	for _, c := range []struct {
		advisory, purl string
		want           osv.Answer
	}{
		{goAdvisory, "pkg:golang/stdlib@v1.21.10", osv.Hit},
		{goAdvisory, "pkg:golang/stdlib@1.21.11", osv.Clear},
		{goAdvisory, "pkg:golang/stdlib@1.22.0", osv.Hit},
		{goAdvisory, "pkg:golang/stdlib@1.22.0-rc.1", osv.Hit},
		{goAdvisory, "pkg:golang/std@1.22.4", osv.Clear},
		{goAdvisory, "pkg:golang/github.com/other/lib@1.0.0", osv.Clear},
		{goAdvisory, "pkg:golang/stdlib", osv.Unknown}, // no version
		{debian, "pkg:deb/debian/libssl3@3.0.11-1~deb12u2?distro=debian-12&upstream=openssl", osv.Hit},
		{debian, "pkg:deb/debian/openssl@3.0.14-1~deb12u1?distro=debian-12", osv.Clear},
		{debian, "pkg:deb/debian/openssl@3.0.11-1?distro=debian-11", osv.Clear}, // another advisory's matter
		{debian, "pkg:deb/debian/openssl@3.0.11-1", osv.Hit},                    // of which release is not said: it may be this one
		{debian, "pkg:deb/debian/libssl3@1?distro=debian-12&upstream=openssl%403.0.14-1~deb12u1", osv.Clear},
		{last, "pkg:pypi/Acme.Lib@1.5", osv.Hit},
		{last, "pkg:pypi/acme_lib@1.5.1", osv.Clear},
		{last, "pkg:pypi/acme-lib@0.9b2", osv.Hit}, // named by itself
		{last, "pkg:pypi/acme-lib@0.9", osv.Clear},
		{commits, "pkg:cargo/acme@1.0.0", osv.Unknown},
		{strings.Replace(goAdvisory, `"published"`, `"withdrawn":"2024-07-01T00:00:00Z","published"`, 1), "pkg:golang/stdlib@1.21.10", osv.Clear},
		{strings.Replace(debian, "Debian:12", "Debian", 1), "pkg:deb/debian/openssl@3.0.11-1?distro=debian-12", osv.Hit},
		{
			`{"id":"U-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"bash","ecosystem":"Ubuntu:22.04:LTS"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"5.1-6ubuntu1.1"}]}]}]}`,
			"pkg:deb/ubuntu/bash@5.1-6ubuntu1?distro=ubuntu-22.04", osv.Hit,
		},
		{strings.Replace(last, `"1.0"`, `"☃"`, 1), "pkg:pypi/acme-lib@1.2", osv.Unknown}, // an advisory that cannot be compared does not clear
		{goAdvisory, "pkg:golang/stdlib@devel", osv.Unknown},
		{goAdvisory, "pkg:golang/stdlib@1.21.10.4", osv.Unknown}, // no version of Go's
		{strings.Replace(goAdvisory, "1.21.11", "next", 1), "pkg:golang/stdlib@1.21.10", osv.Unknown},
		{
			strings.Replace(goAdvisory, `{"introduced":"0"},{"fixed":"1.21.11"},{"introduced":"1.22.0-0"},{"fixed":"1.22.4"}`, `{"fixed":"1.22.4"},{"introduced":"1.22.0-0"},{"fixed":"1.21.11"},{"introduced":"0"}`, 1),
			"pkg:golang/stdlib@1.22.0", osv.Hit,
		}, // events come in any order
	} {
		a, err := osv.Read([]byte(c.advisory))
		if err != nil {
			t.Fatal(err)
		}
		p, version, ok := osv.Of(c.purl)
		if !ok {
			t.Errorf("%s names no package", c.purl)
			continue
		}
		if got := a.About(p, version); got != c.want {
			t.Errorf("%s and %s (%v %s): %d, want %d", a.ID, c.purl, p, version, got, c.want)
		}
	}
}

func TestWhatAdvisoriesCallAPackage(t *testing.T) {
	for purl, want := range map[string]osv.Package{
		"pkg:golang/github.com/acme/lib@v1.0.0":                 {Ecosystem: "Go", Name: "github.com/acme/lib"},
		"pkg:npm/%40acme/lib@1.0.0":                             {Ecosystem: "npm", Name: "@acme/lib"},
		"pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1":  {Ecosystem: "Maven", Name: "org.apache.logging.log4j:log4j-core"},
		"pkg:cargo/time@0.1.42":                                 {Ecosystem: "crates.io", Name: "time"},
		"pkg:composer/symfony/http-kernel@4":                    {Ecosystem: "Packagist", Name: "symfony/http-kernel"},
		"pkg:apk/alpine/busybox@1.36.1-r5?distro=alpine-3.19.1": {Ecosystem: "Alpine:v3.19", Name: "busybox"},
		"pkg:rpm/rocky/openssl@3.0.7?distro=rocky-9.3":          {Ecosystem: "Rocky Linux:9", Name: "openssl"},
		"pkg:rpm/rocky/openssl-libs@3.0.7-24.el9?distro=rocky-9.3&upstream=openssl-3.0.7-24.el9.src.rpm": {Ecosystem: "Rocky Linux:9", Name: "openssl"},
		"pkg:rpm/almalinux/bash@5.1?distro=almalinux-8.10&upstream=bash-completion-2.7-5.el8.src.rpm":    {Ecosystem: "AlmaLinux:8", Name: "bash-completion"},
		"pkg:conan/openssl@3.0.0":                 {Ecosystem: "ConanCenter", Name: "openssl"},
		"pkg:deb/debian/bash@5.2?distro=bookworm": {Ecosystem: "Debian", Name: "bash"},
		"pkg:generic/zlib@1.3":                    {},
		"pkg:github/acme/lib@v1":                  {},
		"no package URL":                          {},
		"pkg:golang/github.com/acme/lib@v1.0.0?type=module#sub/folder": {Ecosystem: "Go", Name: "github.com/acme/lib"},
	} {
		got, _, ok := osv.Of(purl)
		if got != want || ok != (want != osv.Package{}) {
			t.Errorf("%s: %v %v, want %v", purl, got, ok, want)
		}
	}
}

func TestAdvisoriesThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"not JSON":          "advisory",
		"no ID":             `{"modified":"2024-05-01T00:00:00Z"}`,
		"an ID with spaces": `{"id":"a b","modified":"2024-05-01T00:00:00Z"}`,
		"no time":           `{"id":"A-1"}`,
		"an empty event":    `{"id":"A-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"a","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{}]}]}]}`,
		"two in one event":  `{"id":"A-1","modified":"2024-05-01T00:00:00Z","affected":[{"package":{"name":"a","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0","fixed":"1"}]}]}]}`,
		"bytes":             "{\"id\":\"A-1\xff\",\"modified\":\"2024-05-01T00:00:00Z\"}",
	} {
		if _, err := osv.Read([]byte(text)); !errors.Is(err, osv.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range []string{goAdvisory, debian, last, commits} {
		f.Add([]byte(text), "pkg:golang/stdlib@1.21.10")
		f.Add([]byte(text), "pkg:deb/debian/openssl@3.0.11-1?distro=debian-12")
	}
	f.Fuzz(func(t *testing.T, data []byte, purl string) {
		a, err := osv.Read(data)
		if err != nil {
			return
		}
		p, version, ok := osv.Of(purl)
		if !ok {
			return
		}
		got := a.About(p, version)
		if got == osv.Hit && !a.In(p.Base()) {
			t.Errorf("%s is about none of %s, and %s is affected", a.ID, p.Base(), purl)
		}
		if version == "" && got == osv.Hit {
			t.Errorf("no version, and it is affected")
		}
	})
}

// Names that package URLs write in lower case are found, and so is what an advisory says of a release in a way of its own.
func TestAPackageIsWhatAnAdvisoryCallsOtherwise(t *testing.T) {
	for _, c := range []struct {
		purl string
		as   osv.Package
		want bool
	}{
		{"pkg:golang/github.com/Masterminds/goutils@v1.1.0", osv.Package{Ecosystem: "Go", Name: "github.com/Masterminds/goutils"}, true},
		{"pkg:golang/github.com/masterminds/semver@v1.1.0", osv.Package{Ecosystem: "Go", Name: "github.com/Masterminds/goutils"}, false},
		{"pkg:rpm/rocky/openssl@3.0.7?distro=rocky-9.3", osv.Package{Ecosystem: "Rocky Linux:9", Name: "openssl"}, true},
		{"pkg:rpm/rocky/openssl@3.0.7?distro=rocky-9.3", osv.Package{Ecosystem: "Rocky Linux:8", Name: "openssl"}, false},
		{"pkg:deb/ubuntu/openssl@1.1?distro=ubuntu-18.04", osv.Package{Ecosystem: "Ubuntu:Pro:18.04:LTS", Name: "openssl"}, true},
		{"pkg:deb/ubuntu/openssl@1.1?distro=ubuntu-22.04", osv.Package{Ecosystem: "Ubuntu:Pro:18.04:LTS", Name: "openssl"}, false},
	} {
		p, _, ok := osv.Of(c.purl)
		if !ok || p.Is(c.as) != c.want {
			t.Errorf("%s (%v) and %v: %v", c.purl, p, c.as, !c.want)
		}
	}
}
