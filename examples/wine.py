"""An own table: 178 wines of three growers, told apart by 13 measurements (scikit-learn's `load_wine`).

python -m pipeline train --dataset examples.wine:wine --hidden_units 32 --epochs 30
"""

from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from pipeline.data import Dataset


def wine(data_dir: Path, test_share: float = 0.25) -> Dataset:
    """The table, a share of it held out to test with; nothing is read from data_dir."""
    table = load_wine()
    rows, test_rows, labels, test_labels = train_test_split(
        table.data, table.target, test_size=test_share, random_state=0, stratify=table.target
    )
    return Dataset(
        train=(rows, labels),
        test=(test_rows, test_labels),
        classes=["Barolo", "Grignolino", "Barbera"],
        table=True,
        features=table.feature_names,
    )
