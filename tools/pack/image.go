package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	nobody  = 65532 // user and group the server runs as
	bomType = types.MediaType("application/vnd.cyclonedx+json")
)

// image writes an OCI image layout for all platforms, each with its SBOM as a referrer.
func (b build) image(programs []string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		arch, program, ok := strings.Cut(p, "=")
		if !ok {
			return fmt.Errorf("%q is not ARCH=PROGRAM", p)
		}
		platform := v1.Platform{OS: "linux", Architecture: arch}
		img, err := b.platform(platform, program)
		if err != nil {
			return err
		}
		of, err := partial.Descriptor(img)
		if err != nil {
			return err
		}
		of.Platform = &platform
		bom, err := b.attached(program, *of)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}},
			// What is no image is of no platform: runtimes pass over it, and copying the image takes it along.
			mutate.IndexAddendum{Add: bom, Descriptor: v1.Descriptor{
				ArtifactType: string(bomType), Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest.String()},
			}})
	}
	index = mutate.Annotations(index, b.annotations()).(v1.ImageIndex)
	dir, err := os.MkdirTemp("", "hallmark-oci")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	tag := strings.ReplaceAll(b.version, "~", "-") // which a tag may not have
	if err := l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})); err != nil {
		return err
	}
	return b.archive(dir)
}

func (b build) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "Hallmark",
		"org.opencontainers.image.description": "Identity and proof for IoT devices, from factory to disposal",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      b.source,
		"org.opencontainers.image.version":     b.version,
		"org.opencontainers.image.revision":    b.commit,
		"org.opencontainers.image.created":     b.at.Format(time.RFC3339),
	}
}

// platform is the image of one platform: the program, who it runs as, and where its data is.
func (b build) platform(p v1.Platform, program string) (v1.Image, error) {
	data, err := b.root(program)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err = mutate.ConfigFile(base, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Created: v1.Time{Time: b.at},
		Config: v1.Config{
			User:         fmt.Sprintf("%d:%d", nobody, nobody),
			Entrypoint:   []string{"/usr/bin/hallmark"},
			Cmd:          []string{"serve", "--dir", "/data", "--log-json"},
			WorkingDir:   "/data",
			Env:          []string{"PATH=/usr/bin", "HOME=/data"},
			Volumes:      map[string]struct{}{"/data": {}},
			ExposedPorts: map[string]struct{}{"8480/tcp": {}, "8443/tcp": {}},
			Labels:       b.annotations(),
		},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(base, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: b.at}, CreatedBy: "scripts/package.sh"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(img, b.annotations()).(v1.Image), nil
}

// root is the file system of the image, as a tar.
func (b build) root(program string) ([]byte, error) {
	hallmark, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, mode int64, owner int, data []byte) {
		h := &tar.Header{Name: name, Mode: mode, Uid: owner, Gid: owner, Size: int64(len(data)), ModTime: b.at, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = w.Write(data)
		}
	}
	add("data/", 0o700, nobody, nil)
	add("etc/", 0o755, 0, nil)
	add("etc/group", 0o644, 0, fmt.Appendf(nil, "root:x:0:\nhallmark:x:%d:\n", nobody))
	add("etc/passwd", 0o644, 0, fmt.Appendf(nil, "root:x:0:0:root:/:/none\nhallmark:x:%d:%d:Hallmark:/data:/none\n", nobody, nobody))
	add("tmp/", 0o1777, 0, nil)
	add("usr/", 0o755, 0, nil)
	add("usr/bin/", 0o755, 0, nil)
	add("usr/bin/hallmark", 0o755, 0, hallmark)
	return out.Bytes(), errors.Join(err, w.Close())
}

// attached is the SBOM of a program, as what refers to its image.
func (b build) attached(program string, of v1.Descriptor) (v1.Image, error) {
	bom, err := b.sbom(program)
	if err != nil {
		return nil, err
	}
	art := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), bomType)
	art, err = mutate.Append(art, mutate.Addendum{Layer: static.NewLayer(bom, bomType), MediaType: bomType})
	if err != nil {
		return nil, err
	}
	of.Platform = nil
	return mutate.Subject(art, of).(v1.Image), nil
}

// archive puts a directory into the tar that is asked for: sorted, of one time, of nobody.
func (b build) archive(dir string) (err error) {
	f, err := os.Create(b.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o644, ModTime: b.at, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if d.IsDir() {
			h.Name, h.Mode, h.Typeflag = h.Name+"/", 0o755, tar.TypeDir
			return w.WriteHeader(h)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	return errors.Join(err, w.Close())
}
