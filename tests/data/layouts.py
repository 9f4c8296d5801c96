"""Public data sets as they are downloaded, rebuilt small: the folders, tables and names of each.

Every function fills a folder and returns it. Pictures are noise of 40 x 34 px, unlike each other.
What each data set holds is said by its own pages; headers are those of the real files.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HAM = ("mel", "nv", "bkl", "bcc", "akiec", "df", "vasc")


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    """A picture unlike all others: 5 x 5 random cells, enlarged."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((40, 34), Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, seed: int, mode: str = "RGB") -> None:
    """Write a picture, in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, mode).save(path)


def write(path: Path, lines: Sequence[str]) -> None:
    """Write the lines of a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def isic(number: int) -> str:
    """An id of the ISIC archive."""
    return f"ISIC_{number:07d}"


def one_hot(chosen: int, classes: int) -> str:
    """`0.0,1.0,0.0`."""
    return ",".join("1.0" if k == chosen else "0.0" for k in range(classes))


def isic2016(root: Path) -> Path:
    """ISBI 2016, part 3: ground truth without a header, words in one part, numbers in the other."""
    for part, start, n, words in (
        ("Training", 0, 40, ("benign", "malignant")),
        ("Test", 100, 10, ("0.0", "1.0")),
    ):
        rows = [f"{isic(start + i)},{words[i % 4 == 0]}" for i in range(n)]
        write(root / f"ISBI2016_ISIC_Part3_{part}_GroundTruth.csv", rows)
        for i in range(n):
            save(root / f"ISBI2016_ISIC_Part3_{part}_Data" / f"{isic(start + i)}.jpg", start + i)
    return root


def isic2017(root: Path) -> Path:
    """ISIC 2017, part 3: three parts, superpixels beside the images, a second table in each."""
    for part, start, n in (("Training", 0, 40), ("Validation", 100, 8), ("Test_v2", 200, 8)):
        folder = root / f"ISIC-2017_{part}_Data"
        truth, people = ["image_id,melanoma,seborrheic_keratosis"], ["image_id,age_approximate,sex"]
        for i in range(n):
            truth.append(f"{isic(start + i)},{float(i % 4 == 0)},{float(i % 4 == 1)}")
            people.append(f"{isic(start + i)},{'unknown' if i % 5 == 0 else 45},male")
            save(folder / f"{isic(start + i)}.jpg", start + i)
            save(folder / f"{isic(start + i)}_superpixels.png", 5000 + start + i)
        write(root / f"ISIC-2017_{part}_Part3_GroundTruth.csv", truth)
        write(folder / f"ISIC-2017_{part}_Data_metadata.csv", people)
    return root


def isic2018(root: Path, groupings: bool = True) -> Path:
    """ISIC 2018, task 3: one column a class, lesions in a table of their own, licences."""
    classes = "MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    truth = [f"image,{classes}"]
    lesions = ["image,lesion_id,diagnosis_confirm_type"]
    for i in range(56):
        truth.append(f"{isic(i)},{one_hot(i // 2 % 7, 7)}")
        lesions.append(f"{isic(i)},HAM_{i // 2:07d},histopathology")
        save(root / "ISIC2018_Task3_Training_Input" / f"{isic(i)}.jpg", i)
    for name in ("ATTRIBUTION.txt", "LICENSE.txt"):
        write(root / "ISIC2018_Task3_Training_Input" / name, ["x"])
    write(
        root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv",
        truth,
    )
    if groupings:
        write(root / "ISIC2018_Task3_Training_LesionGroupings.csv", lesions)
    return root


ISIC2024 = (
    "isic_id,target,patient_id,age_approx,sex,anatom_site_general,clin_size_long_diam_mm,"
    "image_type,attribution,copyright_license,lesion_id,iddx_full,iddx_1,iddx_2,iddx_3"
)
MELANOMA_2024 = "Malignant::Malignant melanocytic proliferations (Melanoma)::Melanoma in situ"
BCC_2024 = "Malignant::Malignant epidermal proliferations::Basal cell carcinoma"


def isic2024(root: Path, packed: bool = False) -> Path:
    """ISIC 2024 as Kaggle has it: JPEGs in folders, or in an HDF5 file; a test table."""
    rows, images = [ISIC2024], {}
    for i in range(40):
        full = (MELANOMA_2024, BCC_2024, "Benign", "Benign")[i % 4]
        levels = (full.split("::") + [""] * 3)[:3]
        rows.append(
            f"{isic(i)},{int(i % 4 < 2)},IP_{i // 2:07d},{60.0 if i % 7 else ''},male,"
            f"lower extremity,3.04,TBP tile: close-up,MSK,CC-BY,,{full},{','.join(levels)}"
        )
        images[isic(i)] = picture(i)
    write(root / "train-metadata.csv", rows)
    write(root / "test-metadata.csv", ["isic_id,patient_id,age_approx", "ISIC_9999999,IP_9,45.0"])
    write(root / "sample_submission.csv", ["isic_id,target", "ISIC_9999999,0.3"])
    if not packed:
        for number, name in enumerate(images):
            save(root / "train-image/image" / f"{name}.jpg", number)
        return root
    import h5py

    with h5py.File(root / "train-image.hdf5", "w") as file:
        for name, image in images.items():
            content = io.BytesIO()
            image.save(content, "JPEG")
            file.create_dataset(name, data=np.void(content.getvalue()))
    return root


def milk10k(root: Path) -> Path:
    """MILK10k: one column a class and lesion, a clinical and a dermoscopic image of each lesion."""
    classes = [
        "AKIEC",
        "BCC",
        "BEN_OTH",
        "BKL",
        "DF",
        "INF",
        "MAL_OTH",
        "MEL",
        "NV",
        "SCCKA",
        "VASC",
    ]
    truth = ["lesion_id," + ",".join(classes)]
    people = ["lesion_id,image_type,isic_id,attribution,age_approx,sex,skin_tone_class,site"]
    more = ["isic_id,diagnosis_full,diagnosis_confirm_type"]
    for i in range(44):
        truth.append(f"IL_{i:07d},{one_hot(i % 11, 11)}")
        for k, kind in enumerate(("clinical: close-up", "dermoscopic")):
            name = isic(10 * i + k)
            people.append(f"IL_{i:07d},{kind},{name},MILK study team,45,male,3,head_neck_face")
            more.append(f"{name},{'Melanoma Invasive' if i % 11 == 7 else 'Nevus'},histopathology")
            save(root / "MILK10k_Training_Input" / f"IL_{i:07d}" / f"{name}.jpg", 10 * i + k)
    write(root / "MILK10k_Training_GroundTruth.csv", truth)
    write(root / "MILK10k_Training_Metadata.csv", people)
    write(root / "MILK10k_Training_Supplement.csv", more)
    return root


def bcn20000(root: Path) -> Path:
    """BCN20000: the diagnoses of the training part; the test part has none, and no images here."""
    head = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    rows = [head]
    for i in range(48):
        name = f"BCN_{i:010d}.jpg"
        code = ("MEL", "NV", "BCC", "AK", "BKL", "SCC", "DF", "VASC")[i // 2 % 8]
        rows.append(f"{name},55,anterior torso,{code},BCN_{i // 2:07d},2012-05-16,male,train")
        save(root / "BCN_20k_train" / "bcn_20k_train" / name, i)
    write(root / "bcn_20k_train.csv", rows)
    head = head.replace("diagnosis,", "")
    test = "BCN_0000099999.jpg,55,anterior torso,BCN_9999999,2012-05-16,male,test"
    write(root / "bcn_20k_test.csv", [head, test])
    return root


def pad_ufes_20(root: Path) -> Path:
    """PAD-UFES-20: photographs by phone, three folders, names that end in .png in the table."""
    rows = [
        "patient_id,lesion_id,smoke,drink,age,pesticide,gender,skin_cancer_history,fitspatrick,"
        "region,diameter_1,diameter_2,diagnostic,itch,img_id,biopsed"
    ]
    for i in range(48):
        code = ("BCC", "ACK", "NEV", "SEK", "SCC", "MEL")[i // 2 % 6]
        name = f"PAT_{i // 4}_{i // 2}_{100 + i}.png"
        rows.append(
            f"PAT_{i // 4},{i // 2},False,False,55,False,FEMALE,True,3.0,ARM,6.0,5.0,{code},"
            f"UNK,{name},True"
        )
        save(root / "images" / f"imgs_part_{i % 3 + 1}" / name, i)
    write(root / "metadata.csv", rows)
    return root


def derm7pt(root: Path) -> Path:
    """Derm7pt: paths in the table, a clinical and a dermoscopic image of each case."""
    names = (
        *("basal cell carcinoma", "blue nevus", "clark nevus", "dermatofibroma", "lentigo"),
        *("melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)"),
        *("melanoma (0.76 to 1.5 mm)", "melanoma (more than 1.5 mm)", "melanoma metastasis"),
        *("melanosis", "reed or spitz nevus", "seborrheic keratosis", "vascular lesion"),
    )
    rows = ["case_num,diagnosis,seven_point_score,location,sex,management,clinic,derm,case_id"]
    for i in range(60):
        folder = "NEL" if i % 2 else "NGL"
        derm, clinic = (f"{folder}/{folder.title()}{i:03d}{end}.jpg" for end in ("", "c"))
        rows.append(f"{i + 1},{names[i % 15]},0,abdomen,female,excision,{clinic},{derm},")
        save(root / "images" / derm, i)
        save(root / "images" / clinic, 1000 + i)
    write(root / "meta" / "meta.csv", rows)
    write(root / "meta" / "train_indexes.csv", ["indexes", "0", "1"])
    return root


def fitzpatrick17k(root: Path) -> Path:
    """Fitzpatrick17k: names that are MD5 sums, three columns of labels."""
    labels = (
        ("melanoma", "malignant melanoma", "malignant"),
        ("superficial spreading melanoma ssm", "malignant melanoma", "malignant"),
        ("lentigo maligna", "malignant melanoma", "malignant"),
        ("basal cell carcinoma", "malignant epidermal", "malignant"),
        ("nevocytic nevus", "benign melanocyte", "benign"),
        ("psoriasis", "inflammatory", "non-neoplastic"),
    )
    rows = [
        "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,"
        "three_partition_label,qc,url,url_alphanum"
    ]
    for i in range(48):
        rows.append(f"{i:032x},{i % 6 + 1},-1,{','.join(labels[i % 6])},,https://x.example/{i},x")
        save(root / "images" / f"{i:032x}.jpg", i)
    write(root / "fitzpatrick17k.csv", rows)
    return root


def ddi(root: Path) -> Path:
    """DDI: an index without a name, diagnoses with hyphens, True and False."""
    names = (
        *(("melanoma-in-situ", True), ("melanoma-acral-lentiginous", True)),
        *(("nodular-melanoma-(nm)", True), ("basal-cell-carcinoma", True)),
        *(("melanocytic-nevi", False), ("seborrheic-keratosis", False)),
        *(("verruca-vulgaris", False), ("dysplastic-nevus", False)),
    )
    rows = [",DDI_ID,DDI_file,skin_tone,malignant,disease"]
    for i in range(40):
        name, malignant = names[i % 8]
        rows.append(f"{i},{i + 1},{i + 1:06d}.png,{(12, 34, 56)[i % 3]},{malignant},{name}")
        save(root / f"{i + 1:06d}.png", i)
    write(root / "ddi_metadata.csv", rows)
    return root


def ph2(root: Path) -> Path:
    """PH2: BMPs in a folder each, masks of lesions beside them, a table of `||`, a workbook."""
    rows = ["||    Name   ||     Histological Diagnosis     || Clinical Diagnosis || Asymmetry "]
    for i in range(30):
        name = f"IMD{i + 2:03d}"
        folder = root / "PH2 Dataset images" / name
        save(folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp", i)
        save(folder / f"{name}_lesion" / f"{name}_lesion.bmp", 500 + i, "1")
        rows.append(
            f"||   {name}  ||                   ||         {i % 3}          ||      0    ||"
        )
    write(root / "PH2_dataset.txt", [*rows, "", "Legends:", " Clinical Diagnosis: 2 - Melanoma"])
    (root / "PH2_dataset.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    return root


def dermamnist(root: Path, side: int = 64) -> Path:
    """DermaMNIST: three parts of images and labels in one npz."""
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, start, n in (("train", 0, 28), ("val", 100, 7), ("test", 200, 7)):
        pictures = [picture(start + i).resize((side, side)) for i in range(n)]
        arrays[f"{part}_images"] = np.stack([np.asarray(image) for image in pictures])
        arrays[f"{part}_labels"] = (np.arange(n) % 7)[:, None].astype(np.uint8)
    np.savez_compressed(root / f"dermamnist_{side}.npz", **arrays)
    return root


def mednode(root: Path) -> Path:
    """MED-NODE: two class folders, one folder above them."""
    for i in range(30):
        folder = root / "complete_mednode_dataset" / ("melanoma" if i % 3 == 0 else "naevus")
        save(folder / f"{1000 + i}.jpg", i)
    return root


def kaggle_ham10000(root: Path) -> Path:
    """HAM10000 of Kaggle: every folder twice, tables of pixels beside the metadata."""
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for i in range(56):
        rows.append(f"HAM_{i // 2:07d},{isic(i)},{HAM[i // 2 % 7]},histo,45.0,male,back")
        for folder in ("HAM10000_images_part_", "ham10000_images_part_"):
            save(root / f"{folder}{1 + i % 2}" / f"{isic(i)}.jpg", i)
    write(root / "HAM10000_metadata.csv", rows)
    pixels = ",".join(f"pixel{k:04d}" for k in range(2352))
    write(root / "hmnist_28_28_RGB.csv", [f"{pixels},label", ",".join(["7"] * 2352) + ",2"])
    return root


def isic_cli(root: Path) -> Path:
    """One download of `isic image download` a class, each metadata.csv renamed."""
    head = (
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,"
        "diagnosis_2,diagnosis_3,image_type,patient_id,sex"
    )
    kinds = {
        "MEL": ("Malignant", "Malignant melanocytic proliferations (Melanoma)", "Melanoma in situ"),
        "BCC": ("Malignant", "Malignant epidermal proliferations", "Basal cell carcinoma"),
        "NV": ("Benign", "Benign melanocytic proliferations", "Nevus"),
    }
    for k, (name, words) in enumerate(kinds.items()):
        rows = [head]
        for i in range(100 * k, 100 * k + 12):
            rows.append(
                f"{isic(i)},Hospital,CC-0,50,anterior torso,{','.join(words)},dermoscopic,"
                f"IP_{i:07d},female"
            )
            save(root / name / f"{isic(i)}.jpg", i)
        write(root / f"{name}.csv", rows)
    return root
