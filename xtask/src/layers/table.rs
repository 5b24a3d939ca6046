//! Who may depend on whom, as data.

/// What a member may depend on within the workspace.
pub(super) struct Layer {
    /// The package.
    pub(super) name: &'static str,
    /// Its height: an edge must lead to a smaller one.
    pub(super) level: u8,
    /// What it and its build script may use.
    pub(super) normal: &'static [&'static str],
    /// What only its tests, examples and benches may use besides.
    pub(super) dev: &'static [&'static str],
    /// Those of `normal` that must be optional.
    pub(super) optional: &'static [&'static str],
}

/// A dependency that only its owners may name, because of what it drags in.
pub(super) struct Heavy {
    /// The external package.
    pub(super) name: &'static str,
    /// The members that may name it.
    pub(super) owners: &'static [&'static str],
}

/// A kind of external package that a default build must not contain.
pub(super) struct Absence {
    /// The kind in words.
    pub(super) kind: &'static str,
    /// The packages that show it.
    pub(super) packages: &'static [&'static str],
    /// The members whose purpose it is.
    pub(super) exempt: &'static [&'static str],
}

/// A build with chosen features that must not contain some packages.
pub(super) struct FeatureAbsence {
    pub(super) package: &'static str,
    pub(super) feature: &'static str,
    pub(super) packages: &'static [&'static str],
}

/// Everything that `layers` knows.
pub(super) struct Table {
    pub(super) layers: &'static [Layer],
    pub(super) heavy: &'static [Heavy],
    pub(super) absences: &'static [Absence],
    pub(super) feature_absences: &'static [FeatureAbsence],
}

const LIBRARIES: &[&str] = &[
    "core-alloc",
    "core-view",
    "tier-cuda",
    "tier-nvme",
    "blockmgr",
    "graph-csr",
    "weightstore",
    "s3-sync",
];

const fn layer(name: &'static str, level: u8, normal: &'static [&'static str]) -> Layer {
    Layer {
        name,
        level,
        normal,
        dev: &[],
        optional: &[],
    }
}

/// The table of the architecture document.
pub(super) const TABLE: Table = Table {
    layers: &[
        layer("core-alloc", 0, &[]),
        layer("core-view", 1, &["core-alloc"]),
        layer("tier-cuda", 2, &["core-alloc", "core-view"]),
        layer("tier-nvme", 2, &["core-alloc", "core-view"]),
        Layer {
            // Concrete tiers reach the block manager as `dyn`; only its tests name them.
            dev: &["tier-nvme", "tier-cuda"],
            ..layer("blockmgr", 3, &["core-alloc", "core-view"])
        },
        layer("graph-csr", 3, &["core-alloc", "core-view", "tier-nvme"]),
        layer("weightstore", 3, &["core-alloc", "core-view", "tier-nvme"]),
        Layer {
            // A user of cold blocks alone must not get the weight store, and io_uring with it.
            optional: &["weightstore"],
            ..layer("s3-sync", 4, &["core-alloc", "core-view", "weightstore"])
        },
        layer("stepwell", 5, LIBRARIES),
        layer("stepwell-benches", 6, LIBRARIES),
        layer("xtask", 6, &[]),
    ],
    heavy: &[
        Heavy {
            name: "cudarc",
            owners: &["tier-cuda", "stepwell"],
        },
        Heavy {
            name: "io-uring",
            owners: &["tier-nvme", "stepwell"],
        },
        Heavy {
            name: "object_store",
            owners: &["s3-sync", "stepwell"],
        },
        Heavy {
            name: "s3s",
            owners: &["s3-sync", "stepwell"],
        },
        Heavy {
            name: "s3s-fs",
            owners: &["s3-sync", "stepwell"],
        },
        Heavy {
            name: "tokio",
            owners: &["s3-sync", "stepwell"],
        },
    ],
    absences: &[
        Absence {
            kind: "CUDA",
            packages: &["cudarc", "cust", "cust_raw", "cuda-sys", "rustacuda"],
            exempt: &[],
        },
        Absence {
            kind: "TLS",
            packages: &[
                "aws-lc-rs",
                "aws-lc-sys",
                "boring",
                "native-tls",
                "openssl",
                "openssl-sys",
                "ring",
                "rustls",
                "s2n-tls",
            ],
            exempt: &["s3-sync", "stepwell"],
        },
        Absence {
            kind: "an async runtime",
            packages: &[
                "async-executor",
                "async-std",
                "compio",
                "glommio",
                "monoio",
                "smol",
                "tokio",
                "tokio-uring",
            ],
            exempt: &["s3-sync", "stepwell"],
        },
    ],
    feature_absences: &[FeatureAbsence {
        package: "s3-sync",
        feature: "blocks",
        packages: &["io-uring", "tier-nvme", "weightstore"],
    }],
};
