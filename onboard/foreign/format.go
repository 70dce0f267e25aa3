package foreign

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/pki"
)

// Format is how a list of devices comes.
type Format string

// The formats. Each has one device a line.
const (
	CSV     Format = "csv"     // a header of name, hardware, certificate, key_sha256, sha256, sha1 in any order, then a line a device
	AWS     Format = "aws"     // what `aws iot describe-certificate` tells, with the thingName beside it: one JSON document a line
	Custody Format = "custody" // a chain of custody: see Welcome
	Azure   Format = "azure"   // what an export of an IoT Hub's device identities, or a list of a provisioning service's individual enrollments, holds: one JSON document a line
)

// Bounds of a list.
const (
	MaxLine  = 64 << 10 // bytes
	MaxLines = 1_000_000
)

// Device is one device of a list.
type Device struct {
	Name     string // as its maker calls it
	Hardware string // empty: what the list as a whole is said to be
	Kind     string // pki.ForeignKey or ForeignCert: what is pinned; ForeignName: what its CA calls it
	Of       string // of that kind: hex, or the name
	Key      []byte // SHA-256 of its key (SPKI), when the list tells
}

// Line is one line of a list: a device, or why it is none.
type Line struct {
	N      int // from 1
	Device Device
	Err    error
}

// Read gives a list line by line. An error of Read is of the list as a whole: it is not of the format, or too long. yield may end it.
func Read(f Format, r io.Reader, yield func(Line) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), MaxLine)
	decode := map[Format]func([]byte) (Device, error){AWS: decodeAWS, Azure: decodeAzure, CSV: nil}
	one, known := decode[f]
	if !known {
		return fmt.Errorf("format %q: want csv, aws or azure", f)
	}
	n := 0
	for sc.Scan() {
		n++
		if n > MaxLines {
			return fmt.Errorf("more than %d lines: cut the list", MaxLines)
		}
		line := bytes.TrimSpace(bytes.TrimPrefix(sc.Bytes(), []byte("\xef\xbb\xbf")))
		if len(line) == 0 {
			continue
		}
		if one == nil {
			var err error
			if one, err = csvHeader(line); err != nil {
				return err
			}
			continue
		}
		d, err := one(line)
		if err := yield(Line{n, d, err}); err != nil {
			return err
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d has more than %d bytes", n+1, MaxLine)
	}
	if sc.Err() == nil && one == nil {
		return errors.New("the list is empty: a csv begins with a header")
	}
	return sc.Err()
}

var columns = []string{"name", "hardware", "certificate", "key_sha256", "sha256", "sha1"}

// csvHeader reads the first line and gives what decodes the others.
func csvHeader(line []byte) (func([]byte) (Device, error), error) {
	head, err := csvLine(line)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	at := map[string]int{}
	for i, h := range head {
		if !slices.Contains(columns, h) {
			return nil, fmt.Errorf("line 1: column %.40q: want a header of %s", h, strings.Join(columns, ", "))
		}
		if _, twice := at[h]; twice {
			return nil, fmt.Errorf("line 1: column %s comes twice", h)
		}
		at[h] = i
	}
	return func(line []byte) (Device, error) {
		row, err := csvLine(line)
		if err != nil {
			return Device{}, err
		}
		if len(row) != len(head) {
			return Device{}, fmt.Errorf("%d columns, the header has %d", len(row), len(head))
		}
		of := func(column string) string {
			if i, ok := at[column]; ok {
				return row[i]
			}
			return ""
		}
		d := Device{Name: of("name"), Hardware: of("hardware")}
		if cert := of("certificate"); cert != "" {
			der, err := base64.StdEncoding.Strict().DecodeString(cert)
			if err != nil {
				return Device{}, fmt.Errorf("certificate: %w: want base64 of its DER", err)
			}
			return d.certified(der)
		}
		for _, pin := range []struct {
			column, kind string
			size         int
		}{{"key_sha256", pki.ForeignKey, 32}, {"sha256", pki.ForeignCert, 32}, {"sha1", pki.ForeignCert, 20}} {
			if v := of(pin.column); v != "" {
				return d.pinned(pin.kind, v, pin.size)
			}
		}
		return d.called()
	}, nil
}

func csvLine(line []byte) ([]string, error) {
	r := csv.NewReader(bytes.NewReader(line))
	row, err := r.Read()
	if err != nil {
		return nil, err
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one record in a line")
	}
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	return row, nil
}

// certified pins a device to the key of its certificate.
func (d Device) certified(der []byte) (Device, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Device{}, fmt.Errorf("certificate: %w", err)
	}
	if err := pki.ForeignLeaf(c, c.NotBefore); err != nil { // its time is looked at when it is shown
		return Device{}, fmt.Errorf("certificate: %w", err)
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	d.Kind, d.Of, d.Key = pki.ForeignKey, hex.EncodeToString(sum[:]), sum[:]
	if d.Name == "" {
		d.Name = c.Subject.CommonName
	}
	return d, d.check()
}

func (d Device) pinned(kind, digest string, sizes ...int) (Device, error) {
	digest = strings.ToLower(strings.ReplaceAll(digest, ":", ""))
	b, err := hex.DecodeString(digest)
	if err != nil || !slices.Contains(sizes, len(b)) {
		return Device{}, fmt.Errorf("digest %.80q: want %v bytes in hex", digest, sizes)
	}
	d.Kind, d.Of = kind, digest
	if kind == pki.ForeignKey {
		d.Key = b
	}
	return d, d.check()
}

// called has a device that its CA vouches for, under this name.
func (d Device) called() (Device, error) {
	if d.Name == "" {
		return Device{}, errors.New("no name, certificate or digest")
	}
	d.Kind, d.Of = pki.ForeignName, d.Name
	return d, d.check()
}

func (d Device) check() error {
	if len(d.Hardware) > 64 {
		return fmt.Errorf("hardware %.40q: at most 64 bytes", d.Hardware)
	}
	if d.Name == "" {
		return nil
	}
	return pki.CheckForeignName(d.Name)
}

func decodeAWS(line []byte) (Device, error) {
	type certificate struct {
		ID     string `json:"certificateId"`
		PEM    string `json:"certificatePem"`
		Status string `json:"status"`
	}
	var doc struct {
		certificate
		Thing       string       `json:"thingName"`
		Description *certificate `json:"certificateDescription"`
	}
	if err := json.Unmarshal(line, &doc); err != nil {
		return Device{}, err
	}
	c := doc.certificate
	if doc.Description != nil {
		c = *doc.Description
	}
	d := Device{Name: doc.Thing}
	if c.Status != "ACTIVE" {
		return Device{}, fmt.Errorf("certificate %.12s is %q: only ACTIVE ones are taken", c.ID, c.Status)
	}
	if d.Name == "" {
		d.Name = c.ID
	}
	if c.PEM == "" {
		return d.pinned(pki.ForeignCert, c.ID, 32)
	}
	block, rest := pem.Decode([]byte(c.PEM))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return Device{}, errors.New("certificatePem is not one certificate")
	}
	if sum := sha256.Sum256(block.Bytes); c.ID != "" && c.ID != hex.EncodeToString(sum[:]) {
		return Device{}, errors.New("certificateId is not that of certificatePem")
	}
	return d.certified(block.Bytes)
}

func decodeAzure(line []byte) (Device, error) {
	var doc struct {
		ID     string `json:"id"`
		Old    string `json:"deviceId"` // as single identities are shown
		Status string `json:"status"`
		Auth   struct {
			Type       string `json:"type"`
			Thumbprint struct {
				Primary string `json:"primaryThumbprint"`
			} `json:"x509Thumbprint"`
		} `json:"authentication"`
		Registration string `json:"registrationId"` // with a provisioning service: see decodeDPS
	}
	if err := json.Unmarshal(line, &doc); err != nil {
		return Device{}, err
	}
	if doc.Registration != "" {
		return decodeDPS(line)
	}
	d := Device{Name: doc.ID}
	if d.Name == "" {
		d.Name = doc.Old
	}
	switch {
	case d.Name == "":
		return Device{}, errors.New("no id")
	case doc.Status != "enabled":
		return Device{}, fmt.Errorf("device %.40q is %q: only enabled ones are taken", d.Name, doc.Status)
	case doc.Auth.Thumbprint.Primary != "":
		return d.pinned(pki.ForeignCert, doc.Auth.Thumbprint.Primary, 20, 32)
	case doc.Auth.Type == "certificateAuthority":
		return d.called()
	}
	return Device{}, fmt.Errorf("device %.40q has no certificate, only a shared key: give it one first", d.Name)
}

// decodeDPS reads an individual enrollment of a Device Provisioning Service, as `az iot dps enrollment list` tells it.
func decodeDPS(line []byte) (Device, error) {
	var doc struct {
		Registration string `json:"registrationId"`
		Device       string `json:"deviceId"` // empty: named as it is registered
		Status       string `json:"provisioningStatus"`
		Attestation  struct {
			Type string `json:"type"`
			X509 struct {
				Client struct {
					Primary struct {
						Info struct {
							SHA256 string `json:"sha256Thumbprint"`
						} `json:"info"`
					} `json:"primary"`
				} `json:"clientCertificates"`
				References struct {
					Primary string `json:"primary"`
				} `json:"caReferences"`
			} `json:"x509"`
		} `json:"attestation"`
	}
	if err := json.Unmarshal(line, &doc); err != nil {
		return Device{}, err
	}
	d := Device{Name: doc.Device}
	if d.Name == "" {
		d.Name = doc.Registration
	}
	switch {
	case doc.Status != "enabled":
		return Device{}, fmt.Errorf("enrollment %.40q is %q: only enabled ones are taken", doc.Registration, doc.Status)
	case doc.Attestation.X509.Client.Primary.Info.SHA256 != "":
		return d.pinned(pki.ForeignCert, doc.Attestation.X509.Client.Primary.Info.SHA256, 32)
	case doc.Attestation.X509.References.Primary != "": // its CA vouches for it, by the common name that it is registered by
		d.Name = doc.Registration
		return d.called()
	}
	return Device{}, fmt.Errorf("enrollment %.40q is by %q: give the device a certificate first", doc.Registration, doc.Attestation.Type)
}
